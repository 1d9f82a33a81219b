"""access: what devices are given, whether they get in, and the confirmation of a changed sshd."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.adapters.files import put
from lab.adapters.ssh import Target, login, reused
from lab.app._lines import add, lines
from lab.app.lab import Lab
from lab.core.access_files import client as snippet
from lab.core.problem import problem
from lab.kinds.access import Access

PENDING = Path("/etc/lab/access/pending")


def declared(lab: Lab) -> Access:
    """The lab's access declaration; a Problem where there is none."""
    for declaration in lab.declarations.values():
        if isinstance(declaration, Access):
            return declaration
    raise problem("no access is declared", do="write conf/access/NAME.yaml; docs/access.md shows how")


def client(lab: Lab, device: str = "", identity: str = "") -> str:
    """The part of `~/.ssh/config` that a device needs."""
    access = declared(lab)
    if device and device not in access.devices:
        raise problem(
            f"no device is called {device}",
            why=f"there are: {', '.join(access.devices)}",
            do="add its key to `devices:`",
        )
    name = str(lab.head.get("lab", {}).get("name", "lab"))
    addresses = list(access.addresses)
    if access.tailscale and access.tailscale.hostname and access.tailscale.hostname not in addresses:
        addresses.append(access.tailscale.hostname)
    if not addresses:
        raise problem("no address is declared", do="say in `addresses:` under which names devices reach this machine")
    return snippet(name, addresses, access.users[0], access.sshd.port, identity, access.sshd.keep_alive)


def pending() -> dict[str, Any] | None:
    """The unconfirmed change of sshd: `{word, at, until, confirmed}`; None where there is none."""
    try:
        found: dict[str, Any] = json.loads(PENDING.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise problem("the pending change cannot be read", why=str(e), do="wait: sshd goes back by itself") from e
    return found


def confirm(lab: Lab, here: bool = False) -> str:
    """The changed sshd stays. Only a session that began after the change proves that one can still get in."""
    waiting = pending()
    if waiting is None:
        return "Nothing waits for a confirmation."
    if not waiting.get("tried", True):
        raise problem(
            "the change of sshd was cut short before it was tried",
            why="what is in force is still what was before",
            do="run `lab apply` again, then confirm",
        )
    if not here:
        if not os.environ.get("SSH_CONNECTION"):
            raise problem(
                "this is no ssh session",
                why="only a fresh login proves that you can get in",
                do="log in by ssh, or say --here",
            )
        began = _session_began()
        if began < waiting["at"]:
            raise problem(
                "this session is older than the change",
                why="it would live on even if nobody could get in",
                do="log in again",
            )
    path = Path(waiting["confirmed"])
    put(path, waiting["word"].encode(), mode=0o600)
    left = max(0.0, waiting["until"] - time.time())
    return f"Confirmed: sshd stays as it is now ({left / 60:.0f} min before it would have gone back)."


def _session_began() -> float:
    """When the sshd that serves this session was started."""
    import psutil

    process: Any = psutil.Process()
    while process is not None:
        if process.name().startswith("sshd"):
            return _began(process)
        process = process.parent()
    return 0.0


def _began(process: Any) -> float:
    """When a process began. Linux tells when the machine did in whole seconds only: psutil may be one too early."""
    with contextlib.suppress(OSError, AttributeError, ValueError, IndexError):
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    return float(process.create_time())


def probe(lab: Lab, count: int = 10, target: Target | None = None) -> dict[str, Any]:
    """How often and how fast one gets in, in seconds: `{tried, rate, p50, p95, first, reused}`; noted in `state/`."""
    access = declared(lab)
    if target is None:
        host = (access.addresses or ("127.0.0.1",))[0]
        target = Target(host, access.sshd.port, access.users[0])
    times, failed, why = [], 0, ""
    path = lab.state / "access" / "probes.jsonl"
    for _ in range(count):
        seconds, reason = login(target)
        failed, why = failed + bool(reason), reason or why
        if not reason:
            times.append(seconds)
        add(path, at=time.time(), host=target.host, seconds=seconds, why=reason)
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        first, again = reused(target, Path(folder)) if times else (math.nan, math.nan)
    times.sort()
    return {
        "tried": count, "rate": (count - failed) / count if count else 0.0, "why": why,
        "p50": times[len(times) // 2] if times else None, "p95": times[int(len(times) * 0.95)] if times else None,
        "first": None if math.isnan(first) else first, "reused": None if math.isnan(again) else again,
    }  # fmt: skip


def rate(lab: Lab) -> tuple[int, float]:
    """(probes ever made, the part of them that got in)."""
    found = lines(lab.state / "access" / "probes.jsonl", why=str)
    return len(found), sum(not x["why"] for x in found) / len(found) if found else 0.0
