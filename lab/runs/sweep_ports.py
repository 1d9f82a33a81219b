"""Ports of a sweep: who proposes and judges trials (Tuner), and who runs them (Executor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from lab.runs.folder import RunFolder

STARTING = "it is being started"
"""What a trial waits for that is neither queued nor begun."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A trial the study has begun: its number, its parameters, and notes of earlier attempts."""

    number: int
    params: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial that has ended, as the study keeps it."""

    number: int
    state: str
    """`complete`, `pruned`, `failed`, or `infeasible`: outside the constraints, never run."""
    params: Mapping[str, Any]
    values: tuple[float, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    feasible: bool = True
    seconds: float = 0.0
    points: Mapping[int, float] = field(default_factory=dict)
    """Step → what was reported while it ran."""
    ended: float = 0.0


class Tuner(Protocol):
    """A study: proposes points, hears how they do, remembers everything."""

    def begun(self) -> list[Proposed]:
        """Trials that were begun and have no end yet."""
        ...

    def ended(self) -> list[Ended]:
        """Trials that have ended, by number."""
        ...

    def drawn(self) -> int:
        """How many trials were ever begun."""
        ...

    def ask(self) -> Proposed | None:
        """A new trial; None where every point has been tried."""
        ...

    def report(self, number: int, points: Mapping[int, float]) -> None:
        """Intermediate values by step; the same step twice is heard once."""
        ...

    def hopeless(self, number: int) -> bool:
        """Whether the pruner would end the trial now."""
        ...

    def note(self, number: int, name: str, value: Any) -> None:
        """Something to remember with the trial."""
        ...

    def tell(
        self,
        number: int,
        state: str,
        values: Sequence[float] = (),
        *,
        notes: Mapping[str, Any] = MappingProxyType({}),
        points: Mapping[int, float] = MappingProxyType({}),
        excess: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """The trial's end, with what is to be remembered of it; saying it twice is saying it once.

        `points` are intermediate values that were not reported; `excess` is how far it breaks each constraint.
        """
        ...


class Executor(Protocol):
    """Runs trials in their folders."""

    def start(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """The trial runs or will run; nothing where it does already. `again`: it had begun and was lost."""
        ...

    def folder(self, number: int) -> RunFolder:
        """The trial's folder."""
        ...

    def poll(self, number: int) -> dict[str, Any] | None:
        """The result once the trial has ended; state `lost` where its process or node is gone."""
        ...

    def waits(self, number: int) -> str:
        """Why the trial, which was started, has not begun yet; empty once it has, and where the engine lets it in."""
        ...

    def stop(self, number: int) -> None:
        """The trial is asked to end."""
        ...

    def close(self) -> None:
        """What the executor itself had started is gone; trials of a local executor go on."""
        ...
