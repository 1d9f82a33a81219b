"""The queue as text. Rendering only."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab.adapters.admission import Entry
from lab.adapters.pool import Cards
from lab.core.quotas import Use
from lab.core.units import duration, size


def said(job: Entry) -> str:
    """A job in a line: what it holds, or waits for and why. Pure."""
    if job.held:
        held = [f"card {', '.join(job.cards)}"] if job.cards else []
        held += [f"{size(job.need)} of memory and uses {size(job.uses)}"] if job.need or not held else []
        return f"{job.name} holds {' and '.join(held)}"
    needs = [f"{job.asks.cards} card{'s' if job.asks.cards != 1 else ''}"] if job.asks.cards else []
    needs += [f"{size(job.need)} of memory"] if job.need else []
    return f"{job.name} waits for {' and '.join(needs) or 'its turn'}: {job.reason}"


def table(jobs: Sequence[Entry], now: float) -> list[str]:
    """Every job in a line, under a heading. Pure."""
    if not jobs:
        return ["Nothing runs or waits that asks for memory or cards."]
    rows = [("", "run", "priority", "user", "project", "cards", "memory", "for", "expected")]
    for job in jobs:
        asks = job.asks
        cards = ",".join(job.cards) or (str(asks.cards) if asks.cards else "–")
        since = duration(now - (job.began if job.held else job.came))
        rows.append(
            (
                "▸" if job.held else "·", job.name, str(asks.priority), asks.owner or "–", asks.project or "–", cards,
                size(job.need) if job.need else "–", since, duration(asks.seconds) if asks.seconds else "–",
            )
        )  # fmt: skip
    lines = columns(rows)
    out = [lines[0]]
    for job, line in zip(jobs, lines[1:], strict=True):
        out += [line] if job.held else [line, f"     {job.reason}"]
    return out


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under each other. Pure."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def quotas(used: Sequence[Use]) -> list[str]:
    """What each account has taken of its quota. Pure."""
    lines = []
    for one in used:
        parts = []
        if one.quota.gpu_hours is not None:
            parts.append(f"{one.hours:.3g} of {one.quota.gpu_hours:g} GPU-hours until {one.resets.isoformat()}")
        parts += [f"at most {one.quota.slots} at once"] if one.quota.slots else []
        parts += [f"at most {one.quota.disk} on disk"] if one.quota.disk else []
        lines.append(f"  {one.account}: {', '.join(parts)}")
    return ["Quotas:", *lines] if lines else []


def pool(hosts: Sequence[Cards]) -> list[str]:
    """The cards of every host, and how many are free. Pure."""
    rows = [("host", "card", "name", "use", "memory", "temperature", "power", "run")]
    for host in hosts:
        for held in host.cards:
            c = held.card
            rows.append(
                (
                    host.host, c.index, c.name, _in(c.busy, "%"), f"{size(c.used)} of {size(c.memory)}",
                    _in(c.heat, "°C"), _in(c.watts, "W"), held.by or "free",
                )
            )  # fmt: skip
    if len(rows) == 1:
        return ["No cards. NVIDIA's library (NVML) shows none, and this is no Mac."]
    every = [held for host in hosts for held in host.cards]
    busy = sum(1 for held in every if held.by)
    found = [
        *columns(rows),
        f"{len(every)} card{'s' if len(every) != 1 else ''}: {busy} used, {len(every) - busy} free.",
    ]
    old = [f"{h.host} as of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(h.at))}" for h in hosts[1:]]
    return found + ([f"Use and temperature of {', '.join(old)}."] if old else [])


def _in(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.0f} {unit}"
