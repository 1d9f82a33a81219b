"""Admission: what needs much memory or a card starts when it is its turn and there is room.

Every promise and every waiter stands in one ledger of the host (`lab.adapters.admission_ledger`), keyed by pid and
start time: a dead holder's promise lapses by itself, and two processes never get the same bytes or cards. Whose turn it
is `lab.core.queueing` decides. The supervisor of a run asks here before it begins (`lab.runs.supervise`), whoever wants
the run: `lab run`, `lab apply`, a sweep.

    with admit(lab.state, need=8 << 30, total=20 << 30, name="experiment.ppl", wait=True) as promise:
        child = Popen(...)
        with watch(child.pid, promise.need) as watched: child.wait()
"""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.adapters import machine
from lab.adapters.admission_ledger import Book, born, ledger, place
from lab.adapters.footprint import footprint
from lab.core import quotas
from lab.core.problem import problem
from lab.core.queueing import Asks, Job, Room, Standing, Verdict, decide, turns
from lab.core.quotas import Quota
from lab.core.stages import common
from lab.core.units import size
from lab.runs import cards
from lab.runs.folder import boot

POLL = 0.1
"""Seconds between a waiter's looks."""
SMALL = 256 << 20
"""What is not expected to take so much waits for nobody."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Bytes and cards set aside for a process and all its children."""

    id: str
    name: str
    need: int
    pid: int
    waited: float = 0.0
    """Seconds it waited in the queue."""
    cards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, as `lab queue` and `lab status` show it."""

    name: str
    need: int
    pid: int
    held: bool
    uses: int
    """Bytes its processes take now."""
    reason: str = ""
    """Why it waits."""
    asks: Asks = field(default_factory=Asks)
    cards: tuple[str, ...] = ()
    began: float = 0.0
    came: float = 0.0


@contextmanager
def admit(
    state: Path,
    need: int,
    total: int,
    name: str,
    wait: bool,
    *,
    asks: Asks | None = None,
    limits: Mapping[str, Quota] | None = None,
    pid: int | None = None,
    check: Callable[[], None] | None = None,
    say: Callable[[str], None] | None = None,
    free: Callable[[], int] = machine.available,
) -> Iterator[Promise]:
    """A promise of `need` bytes out of `total`, and of cards, held until the block ends or the process dies.

    Turns are taken as `lab.core.queueing` says, `limits` being the quotas of its accounts. Where it does not fit and
    `wait` is false, or where it could never fit, a Problem names what holds the room. `check` is called while waiting
    and may raise; `say` is told why it waits whenever the reason changes.
    """
    asks = asks or Asks()
    pool = cards.pool() if asks.cards else ()
    possible(name, need, total, asks.cards, pool)
    state.mkdir(parents=True, exist_ok=True)
    who = pid or os.getpid()
    me: dict[str, Any] = {
        "id": uuid.uuid4().hex, "pid": who, "born": born(who), "name": name, "need": need, "held": False,
        "came": time.time(), "asks": asdict(asks), "pool": list(pool),
        "limits": {n: q.model_dump() for n, q in (limits or {}).items()}, "state": str(state),
    }  # fmt: skip
    begun, told = time.monotonic(), ""
    try:
        while True:
            verdict, behind = _try(state, me, total, free, queue=wait)
            if verdict.begins:
                break
            if not wait:
                raise problem(f"{name} does not fit now", why=verdict.reason, do="wait for it to end, or stop it")
            if verdict.reason != told and say:
                say(verdict.reason)
            told = verdict.reason
            if check:
                check()
            time.sleep(min(POLL * (1 + behind), 1.0))
        yield Promise(me["id"], name, need, who, time.monotonic() - begun, verdict.cards)
    finally:
        with ledger(state) as book:
            book.entries = [e for e in book.entries if e["id"] != me["id"]]


def possible(name: str, need: int, total: int, asked: int, pool: tuple[str, ...]) -> None:
    """Raises a Problem where a job could never begin on this host. Pure."""
    if need > total:
        raise problem(
            f"{name} needs {size(need)} of memory, more than there is to give",
            why=f"at most {size(total)} are given out on this host",
            do="declare a smaller type or context (`lab advise`), or `allow_overcommit: true`",
        )
    if asked > len(pool):
        raise problem(
            f"{name} asks for {asked} card{'s' if asked != 1 else ''}, more than this host has",
            why=f"`lab gpus` shows {len(pool)}",
            do="lower `resources.cards`, or run it on another host",
        )


def status(state: Path) -> list[Entry]:
    """Every promise and waiter of this host: who runs, then who waits, by their turns. Reads."""
    if not place(state).exists():
        return []
    with ledger(state) as book:
        found, standing = [dict(e) for e in book.entries], _standing(book, time.time())
    order = [j.id for j in turns([_job(e) for e in found if not e["held"]], standing)]
    found.sort(key=lambda e: order.index(e["id"]) if e["id"] in order else -1)
    return [_entry(e, footprint(e["pid"])) for e in found]


def use(state: Path, limits: Mapping[str, Quota]) -> list[quotas.Use]:
    """What of their quotas the accounts have taken: those named, and those that took anything of a glob's. Reads."""
    if not common(state).is_dir():
        return []
    today = datetime.date.today()
    with ledger(state) as book:
        days = book.till(time.time())
    known = {a for held in days.values() for a in held} | {k for k in limits if not set(k) & set("*?[")}
    return [quotas.use(days, a, q, today) for a, q in sorted(quotas.chosen(limits, known).items())]


def _entry(e: Mapping[str, Any], uses: int) -> Entry:
    job = _job(e)
    return Entry(
        job.name, job.memory, e["pid"], e["held"], uses, e.get("reason", ""), job.asks, job.cards, job.began, job.came
    )


def _try(state: Path, mine: dict[str, Any], total: int, free: Callable[[], int], *, queue: bool) -> tuple[Verdict, int]:
    """Takes the promise where it is its turn; otherwise stands in the queue (with `queue`) and says why, how far."""
    with ledger(state) as book:
        now = time.time()
        if not any(e["id"] == mine["id"] for e in book.entries):
            # Behind everybody who came before, whatever the clock is set to.
            came = max([mine["came"], *(e["came"] for e in book.entries if not e["held"])])
            book.entries.append({**mine, "came": came})
        me = next(e for e in book.entries if e["id"] == mine["id"])
        held = [e for e in book.entries if e["held"]]
        waiting = [_job(e) for e in book.entries if not e["held"]]
        pids = {e["pid"] for e in held}
        uses = {e["id"]: footprint(e["pid"], pids - {e["pid"]}) for e in held}
        running = [_job(e, max(e["need"], uses[e["id"]])) for e in held]
        unclaimed = sum(max(0, e["need"] - uses[e["id"]]) for e in held)
        room = _room(total, running, free() - unclaimed, book.entries)
        found = decide(waiting, running, room, _standing(book, now), now)
        verdict = found[mine["id"]]
        if verdict.begins:
            share = max(me["need"] / total if total else 0, len(verdict.cards) / len(room.cards) if room.cards else 0)
            me |= {"held": True, "began": now, "mark": time.monotonic(), "boot": boot()}
            me |= {"cards": list(verdict.cards), "share": share, "reason": ""}
        elif queue:
            me["reason"] = verdict.reason
        else:
            book.entries.remove(me)
        return verdict, list(found).index(mine["id"])


def _room(total: int, running: list[Job], now: int, entries: list[dict[str, Any]]) -> Room:
    """What is left of the memory that is given out, or of what is free now where that is less. Pure."""
    pool = max((tuple(e.get("pool") or ()) for e in entries), key=len)
    left = total - sum(j.holds for j in running)
    if left > now:
        return Room(now, f"{size(max(0, now))} of memory are free now", pool)
    names = ", ".join(f"{j.name} ({size(j.memory)})" for j in running)
    return Room(left, f"{size(max(0, left))} of {size(total)} are left" + (f" beside {names}" if names else ""), pool)


def _standing(book: Book, now: float) -> Standing:
    """How the accounts of those in the ledger stand. Pure but for the day."""
    days, today = book.till(now), datetime.date.fromtimestamp(now)
    limits = {a: Quota(**q) for e in book.entries for a, q in (e.get("limits") or {}).items()}
    over = {a: quotas.over(quotas.use(days, a, q, today)) for a, q in limits.items()}
    return Standing(
        {a: quotas.lately(days, a, today) for e in book.entries for a in _job(e).asks.accounts},
        {a: q.slots for a, q in limits.items() if q.slots},
        {a: why for a, why in over.items() if why},
    )


def _job(e: Mapping[str, Any], holds: int = 0) -> Job:
    asks = Asks(**(e.get("asks") or {}))
    began = float(e.get("began") or 0)
    return Job(e["id"], e["name"], e["need"], asks, e["came"], began, holds, tuple(e.get("cards") or ()))
