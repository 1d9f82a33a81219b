"""Dataset: data by the hash of its content, in versions, checked, split, with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from lab.core import views
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.data_rules import Checks, Policy, Transform
from lab.core.facts import Facts
from lab.core.forecast import Estimate, Forecast
from lab.core.kind import Context, Declaration, Ref
from lab.core.problem import did_you_mean
from lab.core.secret import Place
from lab.core.stages import folder
from lab.core.step import Step
from lab.core.steps_runs import DropDataset, Version
from lab.core.world import World

if TYPE_CHECKING:
    Maker: TypeAlias = Address
    Another: TypeAlias = Address
else:
    Maker = Ref["experiment", "dataset"]
    Another = Ref["dataset"]

SOURCES = ("path", "url", "hub", "from", "call", "merge")
CHECKS = ("rows", "columns", "not_null", "unique", "ranges", "values", "duplicates", "outliers", "files")
TRANSFORMS = ("select", "drop", "rename", "filter", "dedupe", "sample", "sort", "fill", "map")
SEEN = ("version", "format", "rows", "columns", "digest", "splits", "source")


class Dataset(Declaration):
    """Files under a version: what is wanted is their content, whoever made it.

        dataset/corpus.yaml:   path: data/corpus.jsonl      checks: {rows: [100, ], not_null: [text], duplicates: 0}
                               splits: {train: 0.9, test: 0.1}

    Its view is `STORE/datasets/NAME/data`, its versions lie beside it. Destroying it removes the view; the versions
    stay until `lab gc`.
    """

    kind: ClassVar[str] = "dataset"
    derived: ClassVar[bool] = True
    pinned: ClassVar[frozenset[str]] = frozenset({"path", "url", "sha256", "hub", "revision", "include"})
    aside: ClassVar[frozenset[str]] = Declaration.aside | {"waive", "license", "versions", "notes"}

    path: str = ""
    """A file or folder; a relative path starts at the lab's repository."""
    url: Place = Field("", pattern="^((https?|file)://.+)?$")
    """The address of a file."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """The hash the file at `url` must have."""
    hub: str = Field("", pattern=r"^([\w.-]+/[\w.-]+)?$")
    """A dataset of Hugging Face or a mirror: `owner/name`."""
    revision: str = "main"
    """For `hub`: branch, tag or commit."""
    include: tuple[str, ...] = ()
    """For `hub` and folders: globs of the files to take; empty takes all."""
    source_: Maker | None = Field(None, alias="from")
    """The experiment or dataset it is made from."""
    output: str = ""
    """For `from` an experiment: which of its outputs; empty where it has one."""
    call: str = Field("", pattern=r"^([\w.]+:[\w.]+)?$")
    """`package.module:function` that makes it: called with the folder to write to, and `params`."""
    params: Mapping[str, Any] = {}
    """What `call` is given."""
    merge: tuple[Another, ...] = ()
    """Datasets whose files it unites; a file they have with different content is a problem."""
    format: Literal["", "csv", "tsv", "jsonl", "json", "parquet", "arrow", "text", "images", "tfrecord", "files"] = ""
    """Its format; empty finds it by names and contents."""
    transform: tuple[Transform, ...] = ()
    """Steps over its rows, each kept by the hash of its input: `{filter: "score > 0.5"}`, `{dedupe: [text]}`."""
    checks: Checks = Checks()
    """What must hold: rows, columns (name → type), not_null, unique, ranges, values, duplicates, outliers, files."""
    splits: Mapping[str, Annotated[float, Field(ge=0)]] = {}
    """Name → share; a row falls by the hash of its content (or of `split_by`), so equal rows fall together."""
    split_by: str = ""
    """The column whose value decides the split: all rows of one author, one document."""
    seed: int = Field(42, ge=0)
    """For splits and samples."""
    access: Mapping[Literal["read", "write"], tuple[str, ...]] = {}
    """Users and `@groups` of this machine who may read or write it; without it, everybody who may read the store."""
    policy: Mapping[str, Policy] = {}
    """Role → `{columns: […], deny: […], mask: […], where: …}`: what `lab dataset read --as ROLE` gives."""
    waive: bool = False
    """Take a version whose checks fail; what failed is recorded with it."""
    license: str = ""
    """Its licence."""
    versions: Mapping[str, Annotated[int, Field(ge=1)]] = {}
    """Tag → version number."""
    notes: Mapping[str, str] = {}
    """Column → where it comes from and what it means."""

    @model_validator(mode="after")
    def _one_source(self) -> Dataset:
        given = [n for n in SOURCES if getattr(self, "source_" if n == "from" else n)]
        if len(given) != 1:
            also = f", not {' and '.join(given)}" if given else ""
            raise ValueError(f"give exactly one source of {', '.join(SOURCES)}{also}")
        if self.splits and abs(sum(self.splits.values()) - 1) > 1e-9:
            raise ValueError(f"the shares of `splits` add up to {sum(self.splits.values()):g}, not 1")
        for step in self.transform:
            if len(step) != 1 or next(iter(step)) not in TRANSFORMS:
                raise ValueError(f"each step of `transform` is one of {', '.join(TRANSFORMS)}")
        return self

    def vault(self, context: Context) -> str:
        """The folder of its versions: a store of its own. Pure."""
        return "/".join(p for p in (context.store, "datasets", folder(context.lab), context.address.name) if p)

    def view(self, context: Context) -> str:
        """The folder people and programs read. Pure."""
        return f"{self.vault(context)}/data"

    def source(self, context: Context) -> dict[str, Any]:
        """Where it comes from, as its provenance records it. Pure."""
        chosen = {"include": list(self.include)} if self.include else {}
        if self.path:
            return {"path": context.path(self.path), **chosen}
        if self.url:
            return {"url": self.url, "sha256": self.sha256}
        if self.hub:
            return {"hub": self.hub, "revision": self.revision, **chosen}
        if self.call:
            return {"call": self.call, "params": dict(self.params), "root": context.root}
        if self.merge:
            return {"merge": {str(r): context.declaration(r).view(context.of(r)) for r in self.merge}}
        assert self.source_ is not None
        made, at = context.declaration(self.source_), context.of(self.source_)
        place = made.view(at)
        if self.source_.kind == "experiment":
            place += f"/{self.output or next(iter(made.outputs), '')}"
        return {"from": str(self.source_), "path": place}

    def contents(self, context: Context) -> Facts:
        found: dict[str, Any] = {}
        if self.path:
            found["path"] = context.content(context.path(self.path)) or None
        elif self.url and not self.sha256:
            found["url"] = None
        for function in [self.call, *(str(s["map"]) for s in self.transform if "map" in s)]:
            if function:
                file = function.partition(":")[0].replace(".", "/") + ".py"
                found[f"code {function}"] = context.content(context.path(file))
        return found

    def check(self, context: Context) -> Iterable[str | tuple[str, str, str]]:
        if self.path and not context.content(context.path(self.path)):
            yield f"{self.path} is not there", "path", "name a file or folder that exists"
        for name in self.checks:
            if name not in CHECKS:
                yield f"no check is called {name}{did_you_mean(name, CHECKS)}", "checks", f"take {', '.join(CHECKS)}"
        if self.source_ and self.source_.kind == "experiment":
            outputs = context.declaration(self.source_).outputs
            if self.output and self.output not in outputs:
                hint = did_you_mean(self.output, outputs)
                yield f"{self.source_} has no output {self.output}{hint}", "output", "name one it declares"
            elif not self.output and len(outputs) != 1:
                yield f"{self.source_} has {len(outputs)} outputs", "output", "say which"

    def wanted(self, context: Context) -> Facts:
        return {"view": self.view(context), "access": {k: list(v) for k, v in sorted(self.access.items())}}

    def observe(self, world: World, context: Context) -> Facts | None:
        known = bool(context.recorded(context.address))
        if world.stat(f"{context.store}/datasets") is None:
            views.away(world, context.store, known)
        found = views.observe(world, self.vault(context), self.view(context), known=known)
        if found is None or "digest" not in found:
            return None if found is None else {"view": found["view"], "files": found["files"]}
        facts = {"view": found["view"], "files": found["files"], **{k: found[k] for k in SEEN if k in found}}
        return {**facts, "access": found.get("access", {}), "content_digest": str(found.get("content", ""))}

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        if change.action is Action.DESTROY:
            yield DropDataset(self.view(context))
            return
        yield Version(
            name=context.address.name,
            digest=change.digest,
            source=self.source(context),
            view=self.view(context),
            vault=self.vault(context),
            format=self.format,
            checks=dict(self.checks),
            splits=dict(self.splits),
            split_by=self.split_by,
            transform=tuple(dict(s) for s in self.transform),
            access={str(k): list(v) for k, v in sorted(self.access.items())},
            waive=self.waive,
            seed=self.seed,
            tags=dict(self.versions),
        )

    def forecast(self, change: Change, context: Context) -> Forecast:
        size = (context.recorded(context.address) or {}).get("bytes")
        return Forecast(disk=Estimate.within(float(size), 0.5, "its last version") if size else None)
