"""Outcome: how a run ended, told from its exit code, its signal, what it said, and what it left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from pathlib import Path
from typing import Any

from lab.runs.folder import RunFolder


def judged(folder: RunFolder, code: int | None, ended: str, reason: str) -> dict[str, Any]:
    """The result of one attempt: state, reason, code, signal, metrics and outputs. Reads.

    `ended` is how we ended it ourselves, empty where we did not. A run that promised an output or a metric and did not
    deliver has failed, whatever its exit code.
    """
    said = folder.read("exit.json")
    number = -code if code is not None and code < 0 else None
    if ended:
        state = ended
    elif code == 0:
        state = "finished"
    elif number == signal.SIGKILL and oom_kills() > int(folder.read("process.json").get("oom", 0)):
        state, reason = "out of memory", "the system killed it for memory"
    elif number is not None:
        state, reason = "killed", f"by {_signal_name(number)}, which was not ours"
    else:
        state = "out of memory" if said.get("state") == "out of memory" else "failed"
        reason = said.get("reason") or f"exit code {code}{_known(code)}"
    found: dict[str, Any] = {"state": state, "reason": reason, "code": code, "signal": number}
    found["metrics"] = folder.last()
    if state == "finished":
        outputs, missing = measured(folder)
        promised = [m for m in folder.spec.get("metrics", ()) if m not in found["metrics"]]
        if missing:
            found |= {"state": "failed", "reason": f"it promised the output {missing[0]} and did not make it"}
        elif promised:
            found |= {"state": "failed", "reason": f"it promised the metric {promised[0]} and never logged it"}
        found["outputs"] = outputs
        made = {n: o["sha256"] for n, o in outputs.items()} or found["metrics"]
        found["content"] = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    return found


def measured(folder: RunFolder) -> tuple[dict[str, Any], list[str]]:
    """Each declared output with its path, hash and size; and those that are missing. Reads."""
    found: dict[str, Any] = {}
    missing = []
    for name, relative in sorted(folder.spec.get("outputs", {}).items()):
        path = folder / "outputs" / relative
        if not path.exists():
            missing.append(name)
            continue
        found[name] = {"path": str(path), **tree(path)}
    return found, missing


def tree(path: Path) -> dict[str, Any]:
    """`sha256` and `bytes` of a file; of a folder also each file's `hashes` and `sizes` by relative path. Reads.

    A folder's hash is over its sorted `hash  relative/path` lines, as `sha256sum` would list them.
    """
    if path.is_file():
        return {"sha256": _sha256(path), "bytes": path.stat().st_size}
    files = sorted(p for p in path.rglob("*") if p.is_file())
    hashes = {p.relative_to(path).as_posix(): _sha256(p) for p in files}
    sizes = {p.relative_to(path).as_posix(): p.stat().st_size for p in files}
    lines = "".join(f"{h}  {n}\n" for n, h in sorted(hashes.items()))
    whole = hashlib.sha256(lines.encode()).hexdigest()
    return {"sha256": whole, "bytes": sum(sizes.values()), "hashes": hashes, "sizes": sizes}


def _sha256(path: Path) -> str:
    with open(path, "rb", buffering=0) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _known(code: int | None) -> str:
    if code is not None and 128 < code < 160:
        return f" (its shell saw {_signal_name(code - 128)})"
    return {126: " (not executable)", 127: " (command not found)"}.get(code or 0, "")


def oom_kills() -> int:
    """How often our control group has had something killed for memory; 0 on systems that do not tell. Reads."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            # Version 2 has one tree and names no controller; version 1 has a tree of memory's own.
            if not controllers:
                told = Path(f"/sys/fs/cgroup{group}/memory.events")
            elif "memory" in controllers.split(","):
                told = Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control")
            else:
                continue
            if told.exists():
                return int(dict(pair.split() for pair in told.read_text().splitlines())["oom_kill"])
    return 0
