"""Audit: who did what, append-only, each line bound to the one before by its hash.

A log that has grown is put aside under a number that is never used again (`audit.1.jsonl`), and the next one goes on
with its last hash; the oldest of those put aside are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lab.core.facts import canonical

LIMIT = 64 << 10
"""Bytes of one entry at most: what came from a guest is cut, never trusted to be short."""
FIRST = "0" * 64
SIZE = 4 << 20
"""Bytes from which a log is put aside."""
KEPT = 9
"""How many that were put aside stay."""


def append(path: Path, who: str, what: str, **more: Any) -> str:
    """One entry more, on disk when this returns; its hash. Writers wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _opened(path) as f:
        before, end = _last(f), f.seek(0, os.SEEK_END)
        if before == FIRST and (old := aside(path)):
            before = _last(io.BytesIO(old[-1].read_bytes()))
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


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The log, locked for writing; where it had grown, a new one."""
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.stat(path), os.fstat(f.fileno()))
            except FileNotFoundError:
                same = False
            if same and os.fstat(f.fileno()).st_size < SIZE:
                yield f
                return
            if same:
                _put_aside(path)


def _put_aside(path: Path) -> None:
    old = aside(path)
    number = _number(old[-1]) + 1 if old else 1
    os.rename(path, path.with_name(f"{path.stem}.{number}{path.suffix}"))
    for each in old[: max(0, len(old) + 1 - KEPT)]:
        each.unlink(missing_ok=True)


def aside(path: Path) -> list[Path]:
    """What was put aside of a log, oldest first. Reads."""
    found = path.parent.glob(f"{path.stem}.*{path.suffix}")
    return sorted((p for p in found if p.name.split(".")[-2].isdecimal()), key=_number)


def _number(path: Path) -> int:
    return int(path.name.split(".")[-2])


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
    for _, lines in _whole(path):
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and (not who or entry.get("who") == who):
                yield entry


def verify(path: Path) -> tuple[int, str]:
    """(entries that are sound, what is wrong with the next line): empty where the whole chain holds."""
    before, sound, last = FIRST, 0, ""
    parts = _whole(path)
    numbers = [_number(p) for p, _ in parts if p != path]
    if numbers and numbers != list(range(max(1, numbers[-1] - KEPT + 1), numbers[-1] + 1)):
        return 0, f"a part of it is not there: only {', '.join(map(str, numbers))} of those put aside are"
    for part, lines in parts:
        name = "" if part == path else f"{part.name}: "
        # What the oldest follows has been removed.
        cut = part == parts[0][0] and numbers[:1] not in ([], [1])
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                claimed = entry["hash"]
            except (ValueError, KeyError, TypeError):
                if line.strip():
                    return sound, f"{name}line {number} is no whole entry"
                continue
            if entry.get("before") != before and not (cut and number == 1):
                return sound, f"{name}line {number} does not follow the line before it"
            if _hash(entry) != claimed:
                return sound, f"{name}line {number} was altered"
            last, before, sound = before, claimed, sound + 1
    beside = path.with_suffix(".last")
    # A writer killed after its line and before this file leaves the hash of the line before.
    if beside.exists() and beside.read_text().strip() not in (before, last):
        return sound, "its end was cut off: the last entry that was written is not there"
    return sound, ""


def _whole(path: Path) -> list[tuple[Path, list[bytes]]]:
    """Each part with its lines, oldest first, no writer being in the middle of one."""
    with ExitStack() as stack:
        if path.exists():
            fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_SH)
        return [(p, p.read_bytes().splitlines()) for p in (*aside(path), path) if p.exists()]


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical({k: v for k, v in entry.items() if k != "hash"})).hexdigest()
