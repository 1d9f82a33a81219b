"""Totals: what a whole plan needs — bytes to fetch, the disk's peak per volume, memory at once, the critical path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.forecast import NOTHING, Estimate, Forecast
from lab.core.graph import order

STORE = ""
"""The volume of the model store, as `Forecast.volume` names it."""
IDLE = frozenset({Action.NONE, Action.DESTROY, Action.MOVE, Action.ADOPT})


@dataclass(frozen=True, slots=True)
class Totals:
    """The cost of a plan. None means that nothing known asks for it."""

    whole: Forecast = NOTHING
    """Bytes to fetch and on disk add up; memory is the most any one change takes; time is that of the critical path,
    or of all that is fetched where that is longer: fetches share one line."""
    volumes: Mapping[str, Forecast] = field(default_factory=dict)
    """`disk` and `disk_peak` of each volume; the store's is `STORE`."""
    path: tuple[Address, ...] = ()
    """The changes on the critical path: what waits for what, one after the other."""
    unknown: tuple[Address, ...] = ()
    """Changes whose forecast has gaps."""
    together: Estimate | None = None
    """Bytes of memory of all that the lab declares to be used at once."""

    def to_json(self) -> dict[str, Any]:
        """Known figures by name."""
        out = self.whole.to_json()
        if self.volumes:
            out["volumes"] = {v or "store": f.to_json() for v, f in sorted(self.volumes.items())}
        if self.path:
            out["critical_path"] = list(self.path)
        if self.unknown:
            out["unknown"] = list(self.unknown)
        if self.together:
            out["together"] = Forecast(memory=self.together).to_json()["memory"]
        return out


NOTHING_TO_DO = Totals()


def plan(changes: Iterable[Change]) -> Totals:
    """The totals of a plan's changes. Pure."""
    todo = [c for c in changes if c.action not in IDLE]
    forecasts = [c.forecast for c in todo if c.forecast is not NOTHING]
    if not forecasts:
        return NOTHING_TO_DO
    volumes = {v: _volume([f for f in forecasts if f.volume == v]) for v in {f.volume for f in forecasts if f.disk}}
    seconds, path = critical(todo)
    fetched = add([f.seconds for f in forecasts if f.download and f.seconds])
    whole = Forecast(
        download=add([f.download for f in forecasts if f.download]),
        disk=add([f.disk for f in volumes.values() if f.disk]),
        disk_peak=add([f.disk_peak for f in volumes.values() if f.disk_peak]),
        memory=max((f.memory for f in forecasts if f.memory), key=lambda m: m.value, default=None),
        seconds=max(seconds, fetched, key=_value),
    )
    unknown = tuple(c.address for c in todo if c.forecast.notes)
    return Totals(whole, volumes, path if seconds else (), unknown)


def _volume(forecasts: list[Forecast]) -> Forecast:
    """What stays on one volume; at its peak all that stays and the largest passing need, at worst all of them."""
    disk = add([f.disk for f in forecasts if f.disk])
    peaks = [(f.disk, f.disk_peak) for f in forecasts if f.disk and f.disk_peak]
    extra = [_less(peak, stays) for stays, peak in peaks]
    if disk is None or not extra:
        return Forecast(disk=disk, disk_peak=disk)
    top = max(extra, key=lambda e: e.value)
    high = disk.high + sum(e.high for e in extra)
    return Forecast(disk=disk, disk_peak=Estimate(disk.value + top.value, disk.low + top.low, high, disk.source))


def _less(one: Estimate, other: Estimate) -> Estimate:
    return Estimate(
        max(0, one.value - other.value), max(0, one.low - other.low), max(0, one.high - other.high), one.source
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
        best[address] = (add([e for e in (before[0], own) if e]), (*before[1], address))
    return max(best.values(), key=lambda f: _value(f[0]), default=(None, ()))


def shortfalls(totals: Totals, free: Mapping[str, int | None]) -> list[tuple[str, float, int]]:
    """Volumes whose peak exceeds what is free: (volume, bytes needed, bytes free). Pure."""
    out = []
    for volume, need in sorted(totals.volumes.items()):
        left = free.get(volume)
        if left is not None and need.disk_peak and need.disk_peak.value > left:
            out.append((volume, need.disk_peak.value, left))
    return out


def add(many: Iterable[Estimate]) -> Estimate | None:
    """All of them at once; None where there is none. Pure."""
    total: Estimate | None = None
    for e in many:
        total = total + e if total else e
    return total


def _value(e: Estimate | None) -> float:
    return e.value if e else 0.0
