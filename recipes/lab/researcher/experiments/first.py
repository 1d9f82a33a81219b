"""A first experiment: a random walk, whose spread is the metric."""

from __future__ import annotations

import random

from lab import sdk


def walk(steps: int = 1000, scale: float = 1.0) -> dict[str, float]:
    """The end and the greatest distance of a random walk; the seed comes from the declaration."""
    at = far = 0.0
    for step in range(steps):
        at += random.gauss(0.0, scale)
        far = max(far, abs(at))
        if step % 100 == 0:
            sdk.log({"distance": abs(at)}, step=step)
    return {"end": at, "far": far}
