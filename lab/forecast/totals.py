"""Totals: what a whole plan needs — bytes to fetch, the disk's peak per volume, memory at once, the critical path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.forecast import Estimate, Forecast
from lab.core.graph import order

STORE = ""
"""The volume of the model store, as `Forecast.volume` names it."""
IDLE = frozenset({Action.NONE, Action.DESTROY, Action.MOVE, Action.ADOPT})


@dataclass(frozen=True, slots=True)
class Totals:
    """The cost of a plan. None means that nothing known asks for it."""

    download: Estimate | None = None
    disk: Mapping[str, Estimate] = field(default_factory=dict)
    """Bytes that stay, per volume."""
    disk_peak: Mapping[str, Estimate] = field(default_factory=dict)
    """Bytes needed at once while it is done, per volume: a quantization needs its source and its output."""
    memory: Estimate | None = None
    """The most any one change takes."""
    together: Estimate | None = None
    """What all that is declared to run together takes at once."""
    seconds: Estimate | None = None
    """The time of the critical path: what waits for what, one after the other."""
    path: tuple[Address, ...] = ()
    """The changes on the critical path."""
    unknown: tuple[Address, ...] = ()
    """Changes whose forecast has gaps."""

    def to_json(self) -> dict[str, Any]:
        """Known figures by name."""

        def one(e: Estimate) -> dict[str, Any]:
            return {"value": e.value, "low": e.low, "high": e.high, "source": e.source}

        out: dict[str, Any] = {
            n: one(e) for n in ("download", "memory", "together", "seconds") if (e := getattr(self, n)) is not None
        }
        for name in ("disk", "disk_peak"):
            if volumes := getattr(self, name):
                out[name] = {v or "store": one(e) for v, e in sorted(volumes.items())}
        if self.path:
            out["critical_path"] = list(self.path)
        if self.unknown:
            out["unknown"] = list(self.unknown)
        return out


def plan(changes: Iterable[Change], together: Iterable[str] = ()) -> Totals:
    """The totals of a plan's changes; `together` are the addresses declared to run at once. Pure."""
    listed = list(changes)
    todo = [c for c in listed if c.action not in IDLE]
    forecasts = [c.forecast for c in todo]
    kept: dict[str, list[Estimate]] = defaultdict(list)
    extra: dict[str, list[Estimate]] = defaultdict(list)
    for f in forecasts:
        if f.disk:
            kept[f.volume].append(f.disk)
        if f.disk_peak:
            d = f.disk or Estimate.exact(0, f.disk_peak.source)
            more = Estimate(
                max(0, f.disk_peak.value - d.value),
                max(0, f.disk_peak.low - d.low),
                max(0, f.disk_peak.high - d.high),
                f.disk_peak.source,
            )
            extra[f.volume].append(more)
    disk = {v: e for v, many in kept.items() if (e := _sum(many))}
    peak = {v: _peak(kept.get(v, []), extra.get(v, [])) for v in {*kept, *extra}}
    seconds, path = critical(todo)
    wanted = {str(t) for t in together}
    return Totals(
        download=_sum([f.download for f in forecasts if f.download]),
        disk=disk,
        disk_peak=peak,
        memory=max((f.memory for f in forecasts if f.memory), key=lambda m: m.value, default=None),
        together=_sum([c.forecast.memory for c in listed if c.address in wanted and c.forecast.memory]),
        seconds=seconds,
        path=path,
        unknown=tuple(c.address for c in todo if c.forecast.notes),
    )


def critical(changes: Iterable[Change]) -> tuple[Estimate | None, tuple[Address, ...]]:
    """The longest chain of changes that wait for each other, and its time; unknown times count as none. Pure."""
    by = {c.address: c for c in changes}
    best: dict[Address, tuple[Estimate | None, tuple[Address, ...]]] = {}
    for address in order({a: c.requires for a, c in by.items()}):
        before: tuple[Estimate | None, tuple[Address, ...]] = (None, ())
        for need in by[address].requires:
            found = best.get(need)
            if found and _value(found[0]) > _value(before[0]):
                before = found
        own = by[address].forecast.seconds
        best[address] = (_sum([e for e in (before[0], own) if e]), (*before[1], address))
    return max(best.values(), key=lambda f: _value(f[0]), default=(None, ()))


def shortfalls(totals: Totals, free: Mapping[str, int | None]) -> list[tuple[str, float, int]]:
    """Volumes whose peak exceeds what is free: (volume, bytes needed, bytes free). Pure."""
    out = []
    for volume, need in sorted(totals.disk_peak.items()):
        left = free.get(volume)
        if left is not None and need.value > left:
            out.append((volume, need.value, left))
    return out


def add(forecasts: Iterable[Forecast]) -> Estimate | None:
    """Bytes of memory of all at once. Pure."""
    return _sum([f.memory for f in forecasts if f.memory])


def _peak(kept: list[Estimate], extra: list[Estimate]) -> Estimate:
    """All that stays and the largest passing need; at worst every passing need at once."""
    base = _sum(kept) or Estimate.exact(0, "rule")
    if not extra:
        return base
    top = max(extra, key=lambda e: e.value)
    return Estimate(
        base.value + top.value, base.low + top.low, base.high + sum(e.high for e in extra), base.source or top.source
    )


def _sum(many: list[Estimate]) -> Estimate | None:
    total: Estimate | None = None
    for e in many:
        total = total + e if total else e
    return total


def _value(e: Estimate | None) -> float:
    return e.value if e else 0.0
