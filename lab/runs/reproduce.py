"""Reproduce: whether a run's metrics come out again, each within its declared tolerance. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric of a run and of its rerun."""

    name: str
    before: float | None
    after: float | None
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether they agree: bit for bit where the tolerance is 0, else relative to the larger."""
        a, b = self.before, self.after
        if a is None or b is None:
            return a is b
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return a == b or abs(a - b) <= self.tolerance * max(abs(a), abs(b))

    @property
    def difference(self) -> float:
        """Relative difference; infinite where one side is missing."""
        a, b = self.before, self.after
        if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
            return 0.0 if self.equal else math.inf
        return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def judge(
    before: Mapping[str, float], after: Mapping[str, float], tolerance: Mapping[str, float]
) -> tuple[Metric, ...]:
    """Every metric of either run; those that measure time or the machine are left out unless a tolerance names them."""
    names = sorted({*before, *after})
    return tuple(
        Metric(n, before.get(n), after.get(n), float(tolerance.get(n, tolerance.get("*", 0.0))))
        for n in names
        if n in tolerance or not timed(n)
    )


def timed(name: str) -> bool:
    """Whether a metric by its name measures time or the machine, which no rerun repeats."""
    last = name.rsplit("/", 1)[-1].rsplit(".", 1)[-1].lower()
    ends = ("_seconds", "_per_second", "_s", "_ms", "_tps", "_rss", "_mb")
    return name.startswith("system/") or last in ("seconds", "time", "runtime") or last.endswith(ends)


def share(metrics: tuple[Metric, ...]) -> float:
    """The share of equal metrics; 1 where there are none."""
    return sum(m.equal for m in metrics) / len(metrics) if metrics else 1.0
