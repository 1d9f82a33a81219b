"""Steps of runs: execute an experiment, keep a dataset's version, forget what either left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lab.core.facts import Facts
from lab.core.step import Step


@dataclass(frozen=True, slots=True)
class Execute(Step):
    """The experiment has a finished run of this digest, and the links to its outputs show to it.

    A run of the same digest that lives is waited for; one that finished and still has its outputs is taken.
    Outcome: `{run, state, metrics}`.
    """

    verb: ClassVar[str] = "execute"
    uses: ClassVar[tuple[str, ...]] = ("cpu",)

    name: str
    digest: str
    spec: Facts
    """The fields of `lab.runs.run.RunSpec` that a declaration decides."""
    inputs: Facts = field(default_factory=dict)
    """What the run is made from, as its record names it: address → digest and path."""
    secrets: Facts = field(default_factory=dict)
    """Environment variable → `Secret` reference."""
    source: Facts = field(default_factory=dict)
    """`git`, `ref`: where the code is cloned from; empty where it is the lab's own."""
    keep: Facts = field(default_factory=dict)
    """Which checkpoints stay: `last`, `every`, `best`."""
    register: Facts = field(default_factory=dict)
    """The name and aliases under which an output becomes a version in the model registry."""
    record: str = ""
    """The Markdown record to write when it has finished; empty for none."""
    goal: str = ""
    require_clean: bool = False

    def describe(self, limit: int = 60) -> str:
        """The experiment and its digest: the rest follows from them."""
        return f"{self.verb} {self.name} {self.digest}"


@dataclass(frozen=True, slots=True)
class Register(Step):
    """In the model registry the output of the run in force is a version with these aliases and this stage.

    Its performer raises a Problem where the version would go to production and another was approved.
    """

    verb: ClassVar[str] = "register"

    name: str
    """The experiment."""
    rule: Facts
    """`name`, `output`, `aliases`, `stage`, `approved`; empty where nothing is declared any more."""
    before: Facts = field(default_factory=dict)
    """What was recorded: aliases and a stage that are no longer declared are taken away."""

    def describe(self, limit: int = 60) -> str:
        """`register train as tiny: aliases best; stage production, approved by ann (maintainer)`."""
        if not self.rule:
            return f"{self.verb} {self.name} no longer as {self.before.get('name')}"
        r = self.rule
        told = [f"aliases {', '.join(r['aliases'])}" * bool(r["aliases"]), f"stage {r['stage']}" * bool(r["stage"])]
        told += [f"approved by {a['by']} ({a['role']}) for {a['digest']}" if (a := r["approved"]) else ""]
        return (
            f"{self.verb} {self.name} as {r['name']} of {r['output']}: {'; '.join(filter(None, told)) or 'a version'}"
        )


@dataclass(frozen=True, slots=True)
class Forget(Step):
    """Nothing points to the experiment's run any more; the run itself stays until `lab gc`."""

    verb: ClassVar[str] = "forget_runs"
    light: ClassVar[bool] = True

    name: str


@dataclass(frozen=True, slots=True)
class Version(Step):
    """The dataset's content is a version: its files by hash, its manifest, and a view of it in place.

    Outcome: the facts of the version.
    """

    verb: ClassVar[str] = "dataset_version"
    uses: ClassVar[tuple[str, ...]] = ("network",)

    name: str
    digest: str
    source: Facts
    """One of `path`, `url`, `hub`, `from` (with `path`), `call`, `merge`, with its details."""
    view: str
    """The folder people and programs read."""
    vault: str
    """The store of its own that holds blobs and manifests."""
    format: str = ""
    checks: Facts = field(default_factory=dict)
    splits: Facts = field(default_factory=dict)
    split_by: str = ""
    transform: tuple[Any, ...] = ()
    access: Facts = field(default_factory=dict)
    waive: bool = False
    seed: int = 42
    tags: Facts = field(default_factory=dict)
    """Tag → version number."""

    def describe(self, limit: int = 60) -> str:
        """The dataset and its digest: the rest follows from them."""
        return f"{self.verb} {self.name} {self.digest}"


@dataclass(frozen=True, slots=True)
class DropDataset(Step):
    """The view is gone; versions stay in the vault until `lab gc`."""

    verb: ClassVar[str] = "drop_dataset"
    light: ClassVar[bool] = True

    view: str


@dataclass(frozen=True, slots=True)
class Await(Step):
    """The runs and sweeps that read what is about to change have ended.

    Its performer raises a Problem that names those which have not within `patience` seconds.
    """

    verb: ClassVar[str] = "await_readers"
    lasting: ClassVar[bool] = False

    patience: float
    runs: bool = True
    """Whether runs count; else only sweeps."""
