"""The queue's ledger of this host: who holds what and who waits, and the time that jobs held the machine by day.

`state/admission-HOST.json` and `state/usage-HOST.json`, under one kernel lock. An entry belongs to a process: where
that is gone, so is what it held (cards once the run's program is gone too), and its time is charged up to the last that
was seen of it.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core import quotas
from lab.core.stages import common
from lab.runs.folder import RunFolder, boot, who

SLACK = 60.0
"""Seconds by which the two clocks may differ without one of them having been set."""
KEPT = 400
"""Days of use that are remembered."""
_FIELDS = {"id", "pid", "born", "name", "need", "held", "came"}


@dataclass(slots=True)
class Book:
    """What the ledger holds, to be changed in place."""

    entries: list[dict[str, Any]]
    days: quotas.Days

    def till(self, now: float) -> quotas.Days:
        """The days, with what running jobs have taken so far."""
        days = self.days
        for e in self.entries:
            if e["held"]:
                days = charge(days, e, now)
        return days


def place(state: Path, host: str = "") -> Path:
    """The ledger of a host, this one by default, that stages share; several hosts have one each in a shared folder."""
    return common(state) / f"admission-{host or socket.gethostname()}.json"


@contextmanager
def ledger(state: Path) -> Iterator[Book]:
    """The entries of living processes, under the kernel's lock; what the block leaves is written by rename."""
    path = place(state)
    with open(path.with_suffix(".lock"), "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept, days = _entries(path), _days(used(state))
        alive = [e for e in kept if _lives(state, e)]
        living = {e["id"] for e in alive}
        after = days
        for e in kept:
            if e["held"] and e["id"] not in living:
                after = charge(after, e, _seen(state, e))
        book = Book([dict(e) for e in alive], after)
        yield book
        left = {e["id"] for e in book.entries}
        for e in alive:
            if e["held"] and e["id"] not in left:
                book.days = charge(book.days, e, time.time())
        if book.days != days:
            first = (datetime.date.today() - datetime.timedelta(days=KEPT)).isoformat()
            _write(used(state), {d: held for d, held in book.days.items() if d >= first})
        if book.entries != kept:
            _write(path, book.entries)


def charge(days: quotas.Days, entry: dict[str, Any], ended: float) -> quotas.Days:
    """The days with what an entry took until `ended`. Reads the clock that is never set."""
    asks = entry.get("asks") or {}
    names = quotas.accounts(str(asks.get("owner", "")), str(asks.get("project", "")))
    began = float(entry.get("began") or ended)
    if entry.get("mark") and entry.get("boot") == boot():
        # Never longer than it can have been: the clock may have been set meanwhile.
        ended = min(ended, began + max(0.0, time.monotonic() - float(entry["mark"])) + SLACK)
    return quotas.charged(days, names, began, ended, len(entry.get("cards") or ()), float(entry.get("share") or 0))


def used(state: Path) -> Path:
    """Where the time that jobs held this host is kept."""
    return common(state) / f"usage-{socket.gethostname()}.json"


def born(pid: int) -> str | None:
    """What tells a process from a later one of its number, whatever the clock is set to; None where there is none.
    Reads."""
    found = who(pid)
    return f"{found['boot']} {found['start']}" if found["start"] else None


def _lives(state: Path, entry: dict[str, Any]) -> bool:
    """Whether its process lives, or, where it holds cards, the program that its supervisor left behind on them."""
    if (now := born(entry["pid"])) is not None and now == entry["born"]:
        return True
    return bool(entry.get("cards")) and RunFolder(_run(state, entry)).held()


def _run(state: Path, entry: dict[str, Any]) -> Path:
    """The folder of an entry's run, which may be another stage's."""
    return Path(entry.get("state") or common(state)) / "runs" / str(entry["name"])


def _seen(state: Path, entry: dict[str, Any]) -> float:
    """When a run whose supervisor is gone was last seen to do anything: it ended nobody knows when after that."""
    found = [float(entry.get("began") or 0)]
    for file in _run(state, entry).glob("*.jsonl"):
        with suppress(OSError):
            found.append(file.stat().st_mtime)
    return max(found)


def _write(path: Path, value: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _entries(path: Path) -> list[dict[str, Any]]:
    # A ledger that cannot be read is an empty one: its holders' footprints still count as memory that is not free.
    found = _read(path)
    found = found if isinstance(found, list) else []
    return [e for e in found if isinstance(e, dict) and set(e) >= _FIELDS]


def _days(path: Path) -> quotas.Days:
    with suppress(AttributeError, TypeError, ValueError):
        found = _read(path) or {}
        return {str(d): {str(a): (float(c), float(m)) for a, (c, m) in held.items()} for d, held in found.items()}
    return {}
