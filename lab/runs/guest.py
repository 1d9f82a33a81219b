"""Guest: what happens in a guest's own account: a run the broker hands over, ending one, and how much they hold.

It is run by `/etc/lab/start` with a system's Python: standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.runs.folder import RunFolder
from lab.runs.run import RunSpec, launch

LIMIT = 96 << 20
"""Bytes of what the broker hands over at most: code, not data."""


def main() -> None:
    """`start` reads a run and waits for its end; `used` says how much the account holds; `end` ends all it runs."""
    word = sys.argv[1] if len(sys.argv) > 1 else "start"
    if word == "start":
        print(json.dumps(start(json.loads(sys.stdin.buffer.read(LIMIT)))), flush=True)
    else:
        print(json.dumps({"used": used()} if word == "used" else {"ended": end()}), flush=True)


def start(given: Mapping[str, Any]) -> dict[str, Any]:
    """The run is begun, said so in a line, and waited for: how it ended.

    It outlives this process, and the broker.
    """
    folder = Path(given["spec"]["folder"])
    folder.mkdir(parents=True, mode=0o700)
    for name, data in given["files"].items():
        path = folder / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data["bytes"]))
        path.chmod(0o700 if data["runs"] else 0o600)
    (folder / "code").mkdir(exist_ok=True)
    handle = launch(RunSpec.of(given["spec"], folder=folder), given["inputs"])
    print(json.dumps({"run": handle.id}), flush=True)
    result = handle.wait() or {}
    return {"state": result.get("state"), "seconds": result.get("seconds"), "bytes": size(folder)}


def end() -> int:
    """Nothing of this account runs any more but this; how many processes did."""
    import psutil

    me, others = os.getuid(), 0
    for process in psutil.process_iter(["uids", "pid"]):
        uids = process.info["uids"]
        others += bool(uids and uids.real == me and process.info["pid"] != os.getpid())
    if others:
        os.kill(-1, signal.SIGKILL)  # all that this account may signal, itself left out: no child escapes in between
    return others


def used() -> int:
    """Bytes on disk of the account: its home, and what it left where anyone may write."""
    return size(Path.home()) + sum(size(Path(p)) for p in ("/tmp", "/var/tmp", "/dev/shm", "/private/tmp"))  # nosec B108 # measured, never written


def size(top: Path) -> int:
    """Bytes on disk below `top` that belong to this account; links are not followed."""
    total, me = 0, os.getuid()
    for folder, _folders, names in os.walk(top, onerror=lambda e: None):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(folder, name))
                total += found.st_blocks * 512 if found.st_uid == me else 0
    return total


def state() -> Path:
    """The folder below which a guest's runs are."""
    return Path.home() / "lab"


def folder(name: str) -> RunFolder:
    """Where a run of this account is."""
    return RunFolder(state() / "runs" / name)
