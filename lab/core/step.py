"""Step: one effect as a value; performing it twice equals performing it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lab.core.facts import Facts


@dataclass(frozen=True, slots=True)
class Step:
    """The base of every step. A subclass is a frozen dataclass of plain, serializable fields.

    Its performer is a function `(step, stage) -> Facts | None`, found by `verb` in the table of `lab.adapters` or in
    the entry-point group `lab.performers`. The facts it returns are handed to the resource's later steps.
    """

    verb: ClassVar[str] = ""
    """The name under which its performer is found, and the word by which it is shown."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Capacities it occupies while it runs: `network`, `cpu`, `memory`, `ansible`."""
    light: ClassVar[bool] = False
    """Whether it takes about a millisecond, so that many are journalled and committed together."""
    batch: ClassVar[bool] = False
    """Whether steps of this verb that are ready together are performed by one call: `(steps, stages) -> list`."""
    lasting: ClassVar[bool] = True
    """Whether what it did is so for good; else an apply that goes on after a kill performs it again."""

    def describe(self, limit: int = 60) -> str:
        """One line: the verb, then each field that is not its default, long values cut at `limit`."""
        shown = (
            f"{f.name}={_short(v, limit) if f.name != 'mode' else f'{v:04o}'}"
            for f in dataclasses.fields(self)
            if (v := getattr(self, f.name)) != (f.default if f.default is not dataclasses.MISSING else None)
            and v not in ((), {}, "")
        )
        return " ".join([self.verb, *shown])


def _short(value: Any, limit: int) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= limit else f"{text[: limit - 3]}…"


class Stage(Protocol):
    """What a performer is given besides its step: places, secrets, progress and the wish to stop."""

    address: str
    root: Path
    """The lab's repository."""
    state: Path
    """The lab's `state/`."""
    store: Path
    """The model store."""
    scratch: Path
    """A folder of this resource's own under `state/`, made on first use, kept until the resource is finished, so that
    a killed step finds what it had begun."""
    outcome: Facts
    """What the resource's earlier steps of this apply returned, merged."""
    offline: bool
    """Whether every connection but loopback is refused."""
    stage: str
    """The stage of the lab (dev, test, …); empty where it has none."""

    def progress(self, done: float, total: float | None = None, unit: str = "B") -> None:
        """Says how far the step is; cheap, may be called often."""
        ...

    def say(self, text: str) -> None:
        """One line for the log of this resource; secrets that were resolved are masked."""
        ...

    def check(self) -> None:
        """Raises `Cancelled` when the apply is to stop; long steps call it often."""
        ...

    def secret(self, reference: str) -> str:
        """The value behind a `Secret` reference; from then on masked in every log."""
        ...

    def remember(self, path: Path, sha256: str) -> None:
        """Notes the hash of a file just written, so that it is not computed again while the file stands."""
        ...


class Cancelled(Exception):
    """The apply was asked to stop while this step ran; what it had begun may be continued."""


Performer = Callable[[Any, Stage], Facts | None]


@dataclass(frozen=True, slots=True)
class Write(Step):
    """A small file with exactly this content, put in place atomically."""

    verb: ClassVar[str] = "write"
    light: ClassVar[bool] = True

    path: str
    content: str
    mode: int | None = None
    owner: str = ""
    group: str = ""
    encoding: str = "utf-8"
    """`utf-8`, or `base64` where the content is not text."""


@dataclass(frozen=True, slots=True)
class Remove(Step):
    """A file or link that is gone; with `tree`, a directory and all below it. Empty parents up to `upto` go too."""

    verb: ClassVar[str] = "remove"
    light: ClassVar[bool] = True

    path: str
    tree: bool = False
    upto: str = ""


@dataclass(frozen=True, slots=True)
class Play(Step):
    """One item for a task list under `playbooks/`; items that are ready together share one Ansible run.

    `role` names `playbooks/roles/ROLE`; `args` are its declared variables (`argument_specs`). A secret is given as a
    reference in `secrets`: its value is written to a private file and the item says `NAME_file`.
    """

    verb: ClassVar[str] = "play"
    uses: ClassVar[tuple[str, ...]] = ("ansible",)
    batch: ClassVar[bool] = True

    role: str
    args: Facts
    become: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict)
