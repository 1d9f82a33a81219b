"""Steps that obtain models: fetch files, train by a recipe, keep what was made, rename a view."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lab.core.facts import Facts
from lab.core.step import Step
from lab.core.units import size


@dataclass(frozen=True, slots=True)
class Fetch(Step):
    """A model's files are in the store, every byte verified, and its view is in place."""

    verb: ClassVar[str] = "fetch"
    uses: ClassVar[tuple[str, ...]] = ("network",)

    source: Facts
    """What the model is obtained from: one of `path`, `url`, `hub`, `ollama`, `git`, `release`, with its details."""
    store: str
    """Root of the store it lives in."""
    view: str
    """The folder of links that people and tools read."""
    files: Facts = field(default_factory=dict)
    """Relative path → `{url, sha256, oid, size}`, as far as known; empty where the source is to be asked."""
    kept: Facts = field(default_factory=dict)
    """Relative path → sha256 of files just observed whole: they are not read again."""
    provenance: Facts = field(default_factory=dict)
    """What is written beside the links."""
    token: str = ""
    """A `Secret` reference sent as a bearer token to the source's own host."""
    stores: tuple[str, ...] = ()
    """Roots of the lab's other stores: what they hold is copied from there, not fetched."""
    format: str = ""
    """The declared format; other files than these are a problem."""
    allow_pickle: bool = False
    """Whether files that run code when loaded are taken."""
    network: Facts = field(default_factory=dict)
    """`timeout` (s), `tries`, `connections`."""
    known: Facts = field(default_factory=dict)
    """What the source said of the model when it was asked before: commit, license, …"""
    local: bool = False
    """Whether only what is on this machine is taken: no server is asked."""

    def describe(self, limit: int = 60) -> str:
        """`fetch url https://…: 1 file, 2.9 MB → VIEW`; what is kept is not counted."""
        kind, value = next(iter(self.source.items()), ("", ""))
        pinned = str(self.source.get("revision") or self.source.get("tag") or "")
        named = f"{kind} {value if isinstance(value, str) else ', '.join(value)}" + (
            f" @ {pinned[:12]}" if pinned else ""
        )
        todo = [f for n, f in self.files.items() if not f.get("sha256") or self.kept.get(n) != f.get("sha256")]
        sizes = [f.get("size") for f in todo]
        told = f"{len(todo)} of {len(self.files)} files" if self.files else "all files"
        told += f", {size(sum(sizes))}" if sizes and None not in sizes else ""
        return f"{self.verb} {named}: {told} → {self.view}"


@dataclass(frozen=True, slots=True)
class Train(Step):
    """A model trained here by a recipe lies in `stage.scratch / out`; its performer returns facts to be recorded."""

    verb: ClassVar[str] = "train"
    uses: ClassVar[tuple[str, ...]] = ("cpu", "memory")

    recipe: str
    params: Facts = field(default_factory=dict)
    out: str = "out"
    """Name of the folder under `stage.scratch` that holds the finished model, and nothing else, when it is done."""


@dataclass(frozen=True, slots=True)
class Keep(Step):
    """The files of a finished folder are blobs of the store, their view is in place, and the folder is gone."""

    verb: ClassVar[str] = "keep"

    store: str
    view: str
    folder: str = "out"
    """Absolute, or a name under `stage.scratch`."""
    copy: bool = False
    """Whether the folder's files are left where they are."""
    provenance: Facts = field(default_factory=dict)
    format: str = ""
    allow_pickle: bool = False


@dataclass(frozen=True, slots=True)
class MoveView(Step):
    """What a view held is in the store `store` under another view, verified, and the old view is gone."""

    verb: ClassVar[str] = "move_view"

    old: str
    store: str
    view: str
    files: Facts
    provenance: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolve(Step):
    """What a model's source stands for now: commit, files with hashes and sizes, and facts from their headers."""

    verb: ClassVar[str] = "resolve_model"
    uses: ClassVar[tuple[str, ...]] = ("network",)

    source: Facts
    store: str
    files: Facts = field(default_factory=dict)
    token: str = ""
    network: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DropView(Step):
    """The view is gone; its blobs stay until `lab gc`, foreign files stay for good."""

    verb: ClassVar[str] = "drop_view"
    light: ClassVar[bool] = True

    view: str
