"""Quotas: what the runs of a user or project may take in a period, and what they have taken. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, field_validator

from lab.core.block import Block
from lab.core.units import parse_size, size

Days = Mapping[str, Mapping[str, tuple[float, float]]]
"""Local day → account → seconds that it held cards (each card counted), and seconds that it held the whole machine."""
LATELY = 7
"""Days whose use decides whose turn it is."""


class Quota(Block):
    """What the runs of a user or project may take."""

    gpu_hours: float | None = Field(None, ge=0)
    """Hours in a period for which they may hold cards, each card counted."""
    slots: int | None = Field(None, ge=1)
    """How many may run at once; the others wait."""
    disk: str = ""
    """What their folders may hold together, `200 GB`: above it none begins."""
    period: Literal["day", "week", "month"] = "month"
    """When `gpu_hours` begin anew: at midnight, on Monday, on the first."""

    @field_validator("disk")
    @classmethod
    def _size(cls, value: str) -> str:
        if value:
            parse_size(value)
        return value


@dataclass(frozen=True, slots=True)
class Use:
    """What an account has taken of its quota."""

    account: str
    quota: Quota
    hours: float
    """Card hours since the period began."""
    resets: datetime.date


def accounts(owner: str, project: str) -> tuple[str, ...]:
    """The accounts a run is charged to: its user's, and its project's where it has one. Pure."""
    return tuple(f"{kind}.{name}" for kind, name in (("user", owner), ("project", project)) if name)


def chosen(quotas: Mapping[str, Quota], names: Iterable[str]) -> dict[str, Quota]:
    """Account → its quota: the one of its own name, else the first glob that fits. Pure."""
    found = {}
    for name in names:
        fits = [q for k, q in quotas.items() if fnmatchcase(name, k)]
        if fits:
            found[name] = quotas.get(name, fits[0])
    return found


def charged(
    days: Days, names: Iterable[str], began: float, ended: float, cards: int, share: float
) -> dict[str, dict[str, tuple[float, float]]]:
    """The days with a job's time added, split at midnight; `share` is the part of the machine it held. Pure."""
    found = {day: dict(held) for day, held in days.items()}
    names = tuple(names)
    while began < ended:
        day = datetime.date.fromtimestamp(began)
        midnight = datetime.datetime.combine(day + datetime.timedelta(days=1), datetime.time()).timestamp()
        seconds = min(ended, midnight) - began
        of_day = found.setdefault(day.isoformat(), {})
        for name in names:
            held, whole = of_day.get(name, (0.0, 0.0))
            of_day[name] = (held + seconds * cards, whole + seconds * share)
        began = min(ended, midnight)
    return found


def spent(days: Days, account: str, since: datetime.date) -> tuple[float, float]:
    """Card seconds and machine seconds of an account since a day. Pure."""
    known = [held[account] for day, held in days.items() if day >= since.isoformat() and account in held]
    return sum(c for c, _ in known), sum(m for _, m in known)


def lately(days: Days, account: str, today: datetime.date) -> float:
    """Machine seconds of an account in the last days. Pure."""
    return spent(days, account, today - datetime.timedelta(days=LATELY - 1))[1]


def use(days: Days, account: str, quota: Quota, today: datetime.date) -> Use:
    """What an account has taken of its quota in the period of a day. Pure."""
    if quota.period == "day":
        first, resets = today, today + datetime.timedelta(days=1)
    elif quota.period == "week":
        first = today - datetime.timedelta(days=today.weekday())
        resets = first + datetime.timedelta(days=7)
    else:
        first = today.replace(day=1)
        resets = (first + datetime.timedelta(days=32)).replace(day=1)
    return Use(account, quota, spent(days, account, first)[0] / 3600, resets)


def over(found: Use, asked: float = 0.0) -> str:
    """Why no run that holds cards for `asked` hours more may begin; empty where it may. Pure."""
    limit = found.quota.gpu_hours
    if limit is None or (found.hours < limit and found.hours + asked <= limit):
        return ""
    more = f", and it is expected to take {asked:.3g}" if asked else ""
    when = f"the {found.quota.period} ends before {found.resets.isoformat()}"
    return f"{found.account} has used {found.hours:.3g} of {limit:g} GPU-hours{more}; {when}"


def full(account: str, quota: Quota, held: int) -> str:
    """Why no run may begin that would add to the disk an account holds; empty where it may. Pure."""
    if not quota.disk or held < parse_size(quota.disk):
        return ""
    return f"the runs of {account} hold {size(held)} of {size(parse_size(quota.disk))} on disk"
