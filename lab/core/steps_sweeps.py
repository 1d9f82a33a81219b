"""Steps of sweeps: search, and forget what a search left in force."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lab.core.facts import Facts
from lab.core.step import Step


@dataclass(frozen=True, slots=True)
class Search(Step):
    """The study has the trials that were asked for, and `state/sweeps/NAME.json` says which is best.

    A study that was begun goes on: living trials are adopted, finished ones counted, dead ones run again under their
    number with their parameters. Outcome: the summary that file holds.
    """

    verb: ClassVar[str] = "sweep"
    uses: ClassVar[tuple[str, ...]] = ("cpu",)

    name: str
    study: str
    """The study's name: the sweep's, and a hash of what decides which points are tried and how they are judged."""
    digest: str
    experiment: str
    spec: Facts
    """How one trial is run, without the parameters searched: as in `lab.core.steps_runs.Execute`."""
    space: Facts
    """Parameter → distribution, as `lab.core.space` spells it."""
    objective: Facts
    """Metric → `min` or `max`, in order."""
    judge: str = "last"
    """Whether a trial is judged by the `last` value of a metric or by its `best`."""
    constraints: tuple[str, ...] = ()
    sampler: Facts = field(default_factory=dict)
    """`{name, …options}`."""
    pruner: Facts = field(default_factory=dict)
    trials: int | None = None
    """None: every point of the space."""
    timeout: float | None = None
    parallel: int = 1
    seed: int = 42
    stop: Facts = field(default_factory=dict)
    budget: float | None = None
    on_failure: str = "continue"
    reuse: bool = True
    storage: str = ""
    executor: Facts = field(default_factory=dict)
    memory: int | None = None
    """Bytes that one trial may use."""
    inputs: Facts = field(default_factory=dict)
    secrets: Facts = field(default_factory=dict)
    watched: tuple[str, ...] = ()
    """Absolute paths of the code: a trial begins only while their content is what it was when the study began."""

    def describe(self, limit: int = 60) -> str:
        """The study and its size: the rest follows from them."""
        return f"{self.verb} {self.study} trials={self.trials or 'all'} parallel={self.parallel}"


@dataclass(frozen=True, slots=True)
class ForgetSearch(Step):
    """Nothing says any more what the sweep found; its study and its runs stay until `lab gc`."""

    verb: ClassVar[str] = "forget_sweep"
    light: ClassVar[bool] = True

    name: str
