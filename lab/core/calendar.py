"""Calendar: what is due, by whole weeks, months and quarters. Pure."""

from __future__ import annotations

from datetime import date, timedelta

EVERY = ("daily", "weekly", "monthly", "quarterly", "yearly")


def start(every: str, day: date) -> date:
    """The first day of the period that holds a day; weeks begin on Monday."""
    if every == "daily":
        return day
    if every == "weekly":
        return day - timedelta(days=day.weekday())
    if every == "monthly":
        return day.replace(day=1)
    if every == "quarterly":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(month=1, day=1)


def due(every: str, last: date | None, today: date) -> int:
    """How many periods a task is behind: 0 where it was done in this one; a task never done is 1 behind.

    A clock set back (last in the future) counts as done.
    """
    if last is None:
        return 1
    behind, at = 0, start(every, today)
    while at > last:
        behind += 1
        at = start(every, at - timedelta(days=1))
        if behind >= 1000:
            break
    return behind
