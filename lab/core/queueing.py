"""Queueing: which waiting jobs begin now, on which cards, and what each of the others waits for. Pure.

Order: the higher priority; then who had less of the machine lately; then who came first. The first that does not fit is
kept room for: those behind it begin only where they end before that room is due, or leave it free (backfill). A job
whose account has all its slots or GPU-hours is passed over and holds up nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from lab.core.quotas import accounts
from lab.core.units import moment, size


@dataclass(frozen=True, slots=True)
class Asks:
    """What a job asks of the queue besides memory."""

    cards: int = 0
    priority: int = 0
    owner: str = ""
    project: str = ""
    seconds: float | None = None
    """How long it is expected to take; None where nothing is known."""

    @property
    def accounts(self) -> tuple[str, ...]:
        """Whom its use is charged to."""
        return accounts(self.owner, self.project)


@dataclass(frozen=True, slots=True)
class Job:
    """One that waits, or runs."""

    id: str
    name: str
    memory: int = 0
    asks: Asks = field(default_factory=Asks)
    came: float = 0.0
    began: float = 0.0
    """0 while it waits."""
    holds: int = 0
    """Bytes set aside for it, or taken by it where that is more."""
    cards: tuple[str, ...] = ()
    """Those it holds."""


@dataclass(frozen=True, slots=True)
class Room:
    """What may be given out now."""

    memory: int
    """Bytes beyond what running jobs hold."""
    short: str = ""
    """How that is said where it is not enough: `200.0 MB of memory are free now`."""
    cards: tuple[str, ...] = ()
    """All cards of the host, given out or not."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the accounts stand."""

    lately: Mapping[str, float] = field(default_factory=dict)
    """Account → machine seconds it had lately."""
    slots: Mapping[str, int] = field(default_factory=dict)
    """Account → jobs it may run at once."""
    over: Mapping[str, str] = field(default_factory=dict)
    """Account → why none of its jobs that hold cards begins now."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """It begins with these cards, or waits for a reason."""

    begins: bool
    cards: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The room kept for the first that does not fit."""

    job: Job
    due: float
    """When it is expected to begin; infinite where nobody knows."""
    memory: int
    """Bytes that will be left beside it."""
    cards: int


def decide(
    waiting: Iterable[Job], running: Sequence[Job], room: Room, standing: Standing, now: float
) -> dict[str, Verdict]:
    """Each waiting job's verdict, in the order of their turns. Pure."""
    found: dict[str, Verdict] = {}
    busy, memory, kept = list(running), room.memory, None
    free = [c for c in room.cards if not any(c in job.cards for job in running)]
    taken = Counter(name for job in running for name in job.asks.accounts)
    for job in turns(waiting, standing):
        if barred := _barred(job, standing, taken):
            found[job.id] = Verdict(False, reason=barred)
            continue
        lacks = _lacks(job, memory, len(free), room, busy)
        if kept is not None and not _harmless(job, kept, now):
            found[job.id] = Verdict(False, reason=_behind(job, kept, lacks, standing))
            continue
        if lacks:
            found[job.id] = Verdict(False, reason=lacks)
            kept = kept or _keep(job, memory, len(free), busy, now)
            continue
        given, free = tuple(free[: job.asks.cards]), free[job.asks.cards :]
        memory -= job.memory
        taken.update(job.asks.accounts)
        busy.append(Job(job.id, job.name, job.memory, job.asks, job.came, now, job.memory, given))
        if kept is not None and not _ends_before(job, kept, now):
            kept = _Kept(kept.job, kept.due, kept.memory - job.memory, kept.cards - job.asks.cards)
        found[job.id] = Verdict(True, given)
    return found


def turns(waiting: Iterable[Job], standing: Standing) -> list[Job]:
    """The jobs in the order of their turns. Pure."""
    return sorted(waiting, key=lambda j: (-j.asks.priority, _had(j, standing), j.came))


def _had(job: Job, standing: Standing) -> float:
    """What its project had lately, or its user where it is of none. Pure."""
    return standing.lately.get(job.asks.accounts[-1], 0.0) if job.asks.accounts else 0.0


def _barred(job: Job, standing: Standing, taken: Mapping[str, int]) -> str:
    for name in job.asks.accounts:
        if name in standing.slots and taken.get(name, 0) >= standing.slots[name]:
            return f"{name} runs {taken[name]} of {standing.slots[name]} at once"
        if job.asks.cards and name in standing.over:
            return standing.over[name]
    return ""


def _lacks(job: Job, memory: int, cards: int, room: Room, busy: Sequence[Job]) -> str:
    if job.asks.cards > cards:
        names = ", ".join(f"{j.name} ({', '.join(j.cards)})" for j in busy if j.cards)
        beside = f" beside {names}" if names else ""
        return f"{cards} of {len(room.cards)} cards are free{beside}; it needs {job.asks.cards}"
    if job.memory > max(0, memory):
        given = room.memory - memory
        also = f", {size(given)} of them for those that begin now" if given else ""
        return f"{room.short}{also}; it needs {size(job.memory)}"
    return ""


def _keep(job: Job, memory: int, cards: int, busy: Sequence[Job], now: float) -> _Kept:
    """When there will be room for it, as the running ones are expected to end, and what is left beside it then."""
    ends = [(j.began + j.asks.seconds, j.holds, len(j.cards)) for j in busy if j.asks.seconds is not None]
    left, free = memory, cards
    for end, held, given in sorted(e for e in ends if e[0] > now):
        left, free = left + held, free + given
        if job.memory <= left and job.asks.cards <= free:
            return _Kept(job, end, left - job.memory, free - job.asks.cards)
    return _Kept(job, inf, max(0, memory - job.memory), max(0, cards - job.asks.cards))


def _harmless(job: Job, kept: _Kept, now: float) -> bool:
    """It does not delay the one that room is kept for."""
    return _ends_before(job, kept, now) or (job.memory <= kept.memory and job.asks.cards <= kept.cards)


def _ends_before(job: Job, kept: _Kept, now: float) -> bool:
    return kept.due < inf and job.asks.seconds is not None and now + job.asks.seconds <= kept.due


def _behind(job: Job, kept: _Kept, lacks: str, standing: Standing) -> str:
    first = kept.job
    if first.asks.priority > job.asks.priority:
        why = f"has priority {first.asks.priority}"
    elif _had(first, standing) < _had(job, standing):
        whose = first.asks.accounts[-1] if first.asks.accounts else "nobody"
        why = f"is of {whose}, who had less of the machine lately,"
    else:
        why = "came first"
    needs = [f"{first.asks.cards} card{'s' if first.asks.cards != 1 else ''}"] if first.asks.cards else []
    needs += [size(first.memory)] if first.memory else []
    due = f", expected at {moment(kept.due)}" if kept.due < inf else ""
    would = "" if lacks else "; this one would delay it"
    return f"{first.name} {why} and waits for {' and '.join(needs)}{due}{would}"
