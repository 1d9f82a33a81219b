"""Lock: one writer at a time, held by the kernel, told truthfully."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.core.problem import problem


def boot_id() -> str:
    """An id that changes with every boot of this machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    import psutil

    return str(int(psutil.boot_time()))


def me(verb: str) -> dict[str, Any]:
    """Who holds a lock taken by this process."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = str(os.getuid())
    return {
        "host": socket.gethostname(),
        "boot": boot_id(),
        "pid": os.getpid(),
        "user": who,
        "verb": verb,
        "since": time.time(),
    }


@contextlib.contextmanager
def held(path: Path, verb: str) -> Iterator[str]:
    """The writer's lock is ours inside; yields what to tell of a dead holder that was taken over, else "".

    The kernel frees the lock when its holder dies, however it dies. A holder on another host (a shared folder) cannot
    be judged from here: only `lab state unlock` removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(holder(path), verb) from None
        left = holder(path)
        told = ""
        if left is not None:
            if left.get("host") != socket.gethostname():
                raise problem(
                    f"the ledger is locked by {name(left)}",
                    why="it is another host: whether it is alive cannot be seen from here",
                    do="when you are sure it is dead, run `lab state unlock`",
                )
            told = f"took over the lock of {name(left)}, which died"
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(me(verb)).encode(), 0)
        try:
            yield told
        finally:
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def holder(path: Path) -> dict[str, Any] | None:
    """Who wrote its name into the lock and has not taken it back; None where nobody has. Reads."""
    try:
        found = json.loads(path.read_text())
        # Noise names nobody; a name without a time is no name either.
        return {**found, "since": float(found["since"])} if isinstance(found, dict) else None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def working(path: Path) -> dict[str, Any] | None:
    """Who holds the lock at this moment, as the kernel tells; None where nobody does. Reads."""
    try:
        with open(path, "rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder(path) or {}
    except OSError:
        return None
    return None


def unlock(path: Path) -> dict[str, Any] | None:
    """The name in the lock is removed; returns it. Refused while its holder lives on this host."""
    left = holder(path)
    if left is None:
        return None
    with open(path, "r+b") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(left, "unlock") from None
        f.truncate(0)
    return left


def _busy(left: dict[str, Any] | None, verb: str) -> Exception:
    who = name(left) if left else "another lab"
    return problem(f"{who} is writing to this lab", why=f"`lab {verb}` needs the ledger to itself", do="wait for it")


def name(left: dict[str, Any]) -> str:
    """`lab apply` of ada on studio (pid 7, since …). Pure."""
    since = "a time unknown"
    with contextlib.suppress(ValueError, OverflowError, OSError):
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(left.get("since", 0))))
    verb, user, host, pid = (left.get(k, "?") for k in ("verb", "user", "host", "pid"))
    return f"`lab {verb}` of {user} on {host} (pid {pid}, since {since})"
