"""Whose turn it is: priority, fair share, backfill and quotas, as one pure decision, played through as traces."""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, replace

import pytest

from lab.core import quotas
from lab.core.queueing import Asks, Job, Room, Standing, decide
from lab.core.quotas import Quota

GB = 10**9
CARDS = ("0", "1", "2", "3")


@dataclass(frozen=True)
class Submitted:
    """A job of a trace: when it comes and how long it really takes."""

    name: str
    comes: float
    takes: float
    cards: int = 0
    memory: int = 0
    priority: int = 0
    project: str = ""
    told: bool = True
    """Whether anybody knows how long it will take."""


def played(
    jobs: list[Submitted], memory: int = 100 * GB, slots: dict[str, int] | None = None
) -> list[tuple[float, str]]:
    """The trace: when each job began, on a host of four cards where every end and every arrival is looked at."""
    waiting: list[Job] = []
    running: list[Job] = []
    takes = {j.name: j.takes for j in jobs}
    had: dict[str, float] = {}
    began: list[tuple[float, str]] = []
    moments = sorted({j.comes for j in jobs})
    while moments:
        now = moments.pop(0)
        for job in [j for j in running if j.began + takes[j.name] <= now]:
            running.remove(job)
            for account in job.asks.accounts:
                had[account] = had.get(account, 0) + takes[job.name] * len(job.cards) / len(CARDS)
        for j in [j for j in jobs if j.comes == now]:
            asks = Asks(j.cards, j.priority, "ann", j.project, j.takes if j.told else None)
            waiting.append(Job(j.name, j.name, j.memory, asks, came=now))
        room = Room(memory - sum(j.holds for j in running), "less is free", CARDS)
        for name, verdict in decide(waiting, running, room, Standing(had, slots or {}), now).items():
            if verdict.begins:
                job = next(j for j in waiting if j.id == name)
                waiting.remove(job)
                running.append(replace(job, began=now, holds=job.memory, cards=verdict.cards))
                began.append((now, name))
                moments = sorted({*moments, now + takes[name]})
        held = [c for j in running for c in j.cards]
        assert len(held) == len(set(held)), "a card was given twice"
        assert sum(j.holds for j in running) <= memory
    assert not waiting
    return began


def test_a_trace_goes_in_the_expected_order_and_the_small_one_backfills() -> None:
    """Priority before fair share before arrival; a small job fills the gap before a large one and does not delay it.

    S4-2.2.5-2: `huge` is due at 100, when `long` ends; `small` (60 s) fits before that and passes it, `slow` (150 s)
    would delay it and does not.
    """
    trace = [
        Submitted("long", 0, 100, cards=3, project="a"),
        Submitted("huge", 1, 50, cards=4, project="b"),
        Submitted("slow", 2, 150, cards=1, project="b"),
        Submitted("small", 3, 60, cards=1, project="a"),
        Submitted("urgent", 4, 10, cards=1, project="a", priority=9),
        Submitted("again", 5, 40, cards=4, project="a"),
        Submitted("other", 6, 40, cards=4, project="c"),
    ]
    assert played(trace) == [
        (0, "long"),
        (3, "small"),  # ends at 63, before huge is due
        (63, "urgent"),  # its priority is the highest
        (100, "huge"),  # neither b nor c had anything yet, and it came before the one of c
        (150, "other"),  # c had nothing, b and a had
        (190, "slow"),  # b had less than a
        (340, "again"),
    ]


@pytest.mark.parametrize("seed", range(60))
def test_what_backfills_never_delays_the_first_that_waits(seed: int) -> None:
    """However jobs fall, the first that does not fit begins when it would with nobody behind it."""
    chance = random.Random(seed)
    trace = [
        Submitted(f"job{n}", 0, chance.randint(1, 60), chance.randint(0, 4), chance.randint(0, 90) * GB)
        for n in range(12)
    ]
    free, left = len(CARDS), 100 * GB
    first = 0
    while trace[first].cards <= free and trace[first].memory <= left:
        free, left, first = free - trace[first].cards, left - trace[first].memory, first + 1
    alone = {name: at for at, name in played(trace[: first + 1])}
    name = trace[first].name
    assert {name: at for at, name in played(trace)}[name] == alone[name]


def test_where_nobody_knows_how_long_they_take_only_what_is_left_beside_may_pass() -> None:
    """A job of no card passes one that waits for cards, if its memory leaves room for it; a small one does not."""
    running = [Job("r", "r", 10 * GB, Asks(3), began=0, holds=10 * GB, cards=("0", "1", "2"))]
    big = Job("big", "big", 60 * GB, Asks(2), came=1)
    beside = Job("beside", "beside", 20 * GB, Asks(0), came=2)
    delays = Job("delays", "delays", 40 * GB, Asks(0), came=3)
    card = Job("card", "card", 0, Asks(1, seconds=1), came=4)
    found = decide([delays, card, big, beside], running, Room(90 * GB, "", CARDS), Standing(), 10)
    assert [n for n, v in found.items() if v.begins] == ["beside"]
    assert list(found) == ["big", "beside", "delays", "card"]
    assert found["big"].reason == "1 of 4 cards are free beside r (0, 1, 2); it needs 2"
    assert found["card"].reason == "big came first and waits for 2 cards and 60.0 GB; this one would delay it"


def test_those_that_wait_are_told_by_whom_they_were_passed() -> None:
    """By priority, or by who had less of the machine; a job whose account has all its slots holds up nobody."""
    running = [Job("r", "r", 0, Asks(4, owner="ann"), began=0, cards=CARDS)]
    ann, bob = Asks(1, owner="ann"), Asks(1, owner="bob")
    waiting = [Job("a", "a", 0, ann, 1), Job("b", "b", 0, bob, 2), Job("c", "c", 0, replace(ann, priority=3), 3)]
    found = decide(waiting, running, Room(0, "", CARDS), Standing({"user.ann": 90.0, "user.bob": 1.0}), 10)
    assert list(found) == ["c", "b", "a"]
    assert found["a"].reason.startswith("c has priority 3 and waits for 1 card")
    found = decide(waiting[:2], running, Room(0, "", CARDS), Standing({"user.ann": 90.0}), 10)
    assert found["a"].reason.startswith("b is of user.bob, who had less of the machine lately, and waits for 1 card")
    standing = Standing(slots={"user.ann": 1})
    found = decide(waiting, running[:1], Room(0, "", (*CARDS, "4")), standing, 10)
    assert found["c"].reason == "user.ann runs 1 of 1 at once"
    assert found["b"].begins
    assert found["b"].cards == ("4",)


def test_slots_are_kept_through_a_trace() -> None:
    """Three of a project with two slots: the third begins when one of them has ended, another project's at once."""
    trace = [Submitted(n, 0, 10, project="p") for n in ("one", "two", "three")] + [Submitted("q", 0, 10, project="q")]
    assert played(trace, slots={"project.p": 2}) == [(0, "one"), (0, "two"), (0, "q"), (10, "three")]


def test_use_is_split_at_midnight_and_begins_anew_with_its_period() -> None:
    """S4-2.2.5-3: hours count in the day they fell in; a day's, week's and month's quota each forget at their end."""
    at = datetime.datetime(2026, 11, 30, 22, 0).timestamp()  # a Monday, the last of its month
    days = quotas.charged({}, ["user.ann"], at, at + 5 * 3600, cards=2, share=0.5)
    assert days == {"2026-11-30": {"user.ann": (4 * 3600, 3600)}, "2026-12-01": {"user.ann": (6 * 3600, 5400)}}

    def hours(period: str, day: datetime.date) -> float:
        return quotas.use(days, "user.ann", Quota(gpu_hours=8, period=period), day).hours  # type: ignore[arg-type]

    first = datetime.date(2026, 12, 1)
    assert [hours(p, first) for p in ("day", "week", "month")] == [6, 10, 6]
    assert hours("week", datetime.date(2026, 12, 7)) == 0


def test_a_quota_is_told_with_its_numbers() -> None:
    """What was used, of how much, what it would take, and when it begins anew."""
    found = quotas.Use("user.ann", Quota(gpu_hours=10), 8, datetime.date(2026, 12, 1))
    assert quotas.over(found, 2) == ""
    assert quotas.over(found, 3) == (
        "user.ann has used 8 of 10 GPU-hours, and it is expected to take 3; the month ends before 2026-12-01"
    )
    assert quotas.full("user.ann", Quota(disk="1 GB"), 2 * GB) == "the runs of user.ann hold 2.0 GB of 1.0 GB on disk"
    own, every = Quota(slots=8), Quota(slots=2)
    assert quotas.chosen({"user.*": every, "user.ann": own}, ["user.ann", "user.bob", "project.x"]) == {
        "user.ann": own,
        "user.bob": every,
    }
