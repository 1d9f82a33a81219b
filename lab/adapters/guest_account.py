"""Guest account: something done there by the owner, through the one program that root allows."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lab.core.guest_files import BROKER, FOLDER, KIT, SOCKET, START
from lab.core.problem import problem


def start(name: str, *words: str) -> subprocess.Popen[bytes]:
    """`/etc/lab/start WORDS` in the guest's account: by root's own right, else by sudo's rule for it."""
    found = pwd.getpwnam(name)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if os.geteuid() == 0:
        groups = os.getgrouplist(name, found.pw_gid)
        env = {"HOME": found.pw_dir, "PATH": "/usr/bin:/bin"}
        return subprocess.Popen(
            [START, *words], user=found.pw_uid, group=found.pw_gid, extra_groups=groups, env=env, cwd="/",
            start_new_session=True, **pipes,
        )  # fmt: skip
    argv = ["sudo", "-n", "-H", "-u", name, "--", START, *words]
    try:
        return subprocess.Popen(argv, cwd="/", start_new_session=True, **pipes)
    except FileNotFoundError as e:
        raise problem("nothing can be started for guests", why="there is no sudo here", do="install sudo") from e


def ask(name: str, word: str, timeout: float = 60.0) -> dict[str, Any]:
    """What the guest's side answers to a word; empty where it says nothing in time: a guest can stop what is theirs."""
    process = start(name, word)
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(PermissionError):  # sudo is root's
            process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()  # never waited for: whatever the guest left behind it may hold the other end
        return {}
    try:
        found = json.loads(out)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def rights(name: str) -> dict[str, Any]:
    """What root's own file says a guest may do; empty where they are no guest."""
    try:
        found = json.loads(Path(FOLDER, name, "rights.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def names() -> list[str]:
    """Every guest of the machine, as applied."""
    try:
        return sorted(e.name for e in os.scandir(FOLDER) if e.is_dir())
    except OSError:
        return []


def kit() -> None:
    """Lab's own code lies where guests can read it, with all that the part which runs there needs."""
    import psutil

    import lab

    package = Path(lab.__file__).parent
    fresh, old = Path(KIT + ".new"), Path(KIT + ".old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "_shipped")
    shutil.copytree(package, fresh / "lab", ignore=skip)
    # What a run's processes hold together is asked of psutil; it is built for every Python 3.
    shutil.copytree(Path(psutil.__file__).parent, fresh / "psutil", ignore=skip)
    for folder, _folders, files in os.walk(fresh):
        os.chmod(folder, 0o755)  # nosec B103 # guests read it, root owns it
        for each in files:
            os.chmod(os.path.join(folder, each), 0o644)
    if os.path.exists(KIT):
        os.rename(KIT, old)
    os.rename(fresh, KIT)
    shutil.rmtree(old, ignore_errors=True)


def broker(version: str) -> str:
    """How the broker of this machine is: `answers`, `silent` or `of another version`. Reads."""
    from lab.adapters import peer

    try:
        found = peer.ask(Path(SOCKET), {"ask": "version"}, timeout=5)
    except PermissionError:
        return "answers"  # only the owner and guests may ask; whoever else plans cannot tell
    except (OSError, ValueError):
        return "silent"
    return "answers" if found.get("version") == version else "of another version"


def place() -> Path:
    """The broker's folder; a Problem where no guest was ever applied."""
    if not os.path.isdir(BROKER):
        raise problem("no guest is on this machine", do="declare one in conf/guest/, then `lab apply`")
    return Path(BROKER)
