"""Forecast: what a change will cost, each figure with its interval and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

STALE = "stale calibration"
"""The source of a rate whose engine was upgraded since it was measured."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, the interval that holds it, and its source (`file size`, `header`, `rule`, `calibration`, …)."""

    value: float
    low: float
    high: float
    source: str

    @classmethod
    def exact(cls, value: float, source: str) -> Estimate:
        """A figure that is known, not estimated."""
        return cls(value, value, value, source)

    @classmethod
    def within(cls, value: float, fraction: float, source: str) -> Estimate:
        """A figure with a relative interval: `value` ± `fraction`."""
        return cls(value, value * (1 - fraction), value * (1 + fraction), source)

    def __add__(self, other: Estimate) -> Estimate:
        source = self.source if self.source == other.source else f"{self.source}, {other.source}"
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high, source)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of one change or of a whole plan. None means "not known", never zero."""

    download: Estimate | None = None
    """Bytes to fetch."""
    disk: Estimate | None = None
    """Bytes on disk when done."""
    disk_peak: Estimate | None = None
    """Bytes needed at once while it is being done, `disk` included."""
    memory: Estimate | None = None
    """Peak bytes of memory while it is being done or used as declared."""
    seconds: Estimate | None = None
    """Time to do it."""
    tokens_per_second: Estimate | None = None
    """Generation speed as declared."""
    volume: str = ""
    """The folder whose volume the disk bytes fall on; empty for the store."""
    notes: tuple[str, ...] = ()
    """What is not known and why, in one line each."""

    def to_json(self) -> dict[str, Any]:
        """Known figures only, each `{value, low, high, source}`."""
        out: dict[str, Any] = {}
        for f in fields(self):
            v = getattr(self, f.name)
            if isinstance(v, Estimate):
                out[f.name] = {"value": v.value, "low": v.low, "high": v.high, "source": v.source}
            elif v:
                out[f.name] = list(v) if isinstance(v, tuple) else v
        return out


NOTHING = Forecast()
