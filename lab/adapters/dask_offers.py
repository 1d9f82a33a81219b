"""What a Dask worker offers: its host's memory, cores and cards, whoever started it. Imported where Dask is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from distributed import WorkerPlugin

from lab.adapters import machine
from lab.core.problem import problem
from lab.core.steps_sweeps import Search
from lab.core.units import size
from lab.runs import cards

MEMORY, CORES, CARDS = "lab-memory", "lab-cores", "lab-cards"


class Offers(WorkerPlugin):  # type: ignore[misc]
    """Every worker says what its host has, also one that comes later."""

    name = "lab-offers"

    async def setup(self, worker: Any) -> None:
        """On the worker."""
        await worker.set_resources(**here())


def here() -> dict[str, float]:
    """What this host has. Reads."""
    return {MEMORY: machine.read().memory or 0, CORES: os.cpu_count() or 1, CARDS: len(cards.pool())}


def asked(step: Search) -> dict[str, float]:
    """What one trial asks of a worker: what its experiment declares. Pure."""
    found = {MEMORY: step.memory, CORES: step.spec.get("cores"), CARDS: step.spec.get("cards")}
    return {name: float(value) for name, value in found.items() if value}


def held(wanted: Mapping[str, float], offered: Iterable[Mapping[str, float]]) -> None:
    """Raises a Problem where no worker could ever hold a trial; none has come yet is no problem. Pure."""
    workers = list(offered)
    if not workers or any(all(w.get(n, 0) >= v for n, v in wanted.items()) for w in workers):
        return
    lacks = [n for n, v in wanted.items() if all(w.get(n, 0) < v for w in workers)] or list(wanted)
    said = [
        f"{_said(n, wanted[n])}, and the most that one has is {_said(n, max(w.get(n, 0) for w in workers))}"
        for n in lacks
    ]
    raise problem(
        "no worker of the cluster can hold a trial", why=f"it asks for {'; '.join(said)}", do="lower `resources`"
    )


def _said(name: str, value: float) -> str:
    return f"{size(value)} of memory" if name == MEMORY else f"{value:g} {name.removeprefix('lab-')}"
