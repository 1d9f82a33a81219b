"""Audit: who did what, append-only, each line bound to the one before by its hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.core.facts import canonical

LIMIT = 64 << 10
"""Bytes of one entry at most: what came from a guest is cut, never trusted to be short."""
FIRST = "0" * 64


def append(path: Path, who: str, what: str, **more: Any) -> str:
    """One entry more, on disk when this returns; its hash. Writers wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        before, end = _last(f), f.seek(0, os.SEEK_END)
        entry: dict[str, Any] = {"at": time.time(), "who": who, "what": what, **more}
        if len(canonical(entry)) > LIMIT:
            entry = {k: entry[k] for k in ("at", "who", "what")} | {"cut": len(canonical(entry))}
        entry["before"] = before
        entry["hash"] = _hash(entry)
        try:
            f.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            f.flush()
            os.fsync(f.fileno())
        except OSError:
            # Nobody knows whether it is on disk: the next entry follows the one before it.
            os.ftruncate(f.fileno(), end)
            raise
        _tell_last(path, str(entry["hash"]))
        return str(entry["hash"])


def _tell_last(path: Path, found: str) -> None:
    """The last hash stands beside the log: a log that was cut at its end still holds together, but not with this."""
    beside = path.with_suffix(".last")
    fresh = beside.with_name(f".{beside.name}.{os.getpid()}")
    fresh.write_text(found + "\n")
    fresh.chmod(0o600)
    os.replace(fresh, beside)


def _last(f: Any) -> str:
    """The hash of the last whole line; a line that a crash cut short is ended and counts as none."""
    end = f.seek(0, os.SEEK_END)
    if not end:
        return FIRST
    f.seek(max(0, end - 4 * LIMIT))
    data = f.read()
    if not data.endswith(b"\n"):
        f.write(b"\n")
    for line in reversed(data.splitlines()):
        try:
            return str(json.loads(line)["hash"])
        except (ValueError, KeyError, TypeError):
            continue
    return FIRST


def entries(path: Path, who: str = "") -> Iterator[dict[str, Any]]:
    """Every whole entry in order, of one person where named."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and (not who or entry.get("who") == who):
            yield entry


def verify(path: Path) -> tuple[int, str]:
    """(entries that are sound, what is wrong with the next line): empty where the whole chain holds."""
    before, sound, last = FIRST, 0, ""
    for number, line in enumerate(_whole(path), 1):
        try:
            entry = json.loads(line)
            claimed = entry["hash"]
        except (ValueError, KeyError, TypeError):
            if line.strip():
                return sound, f"line {number} is no whole entry"
            continue
        if entry.get("before") != before:
            return sound, f"line {number} does not follow the line before it"
        if _hash(entry) != claimed:
            return sound, f"line {number} was altered"
        last, before, sound = before, claimed, sound + 1
    beside = path.with_suffix(".last")
    # A writer killed after its line and before this file leaves the hash of the line before.
    if beside.exists() and beside.read_text().strip() not in (before, last):
        return sound, "its end was cut off: the last entry that was written is not there"
    return sound, ""


def _whole(path: Path) -> list[bytes]:
    """Every line, no writer being in the middle of one."""
    if not path.exists():
        return []
    with path.open("rb") as f:
        fcntl.flock(f, fcntl.LOCK_SH)
        return f.read().splitlines()


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()
