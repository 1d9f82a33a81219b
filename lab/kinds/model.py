"""model: weights obtained from somewhere, kept once in the store, readable by name."""

from __future__ import annotations

import os.path
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from lab.core import layout, views
from lab.core.address import Address
from lab.core.budget import Budget
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.forecast import Estimate, Forecast
from lab.core.kind import Context, Declaration, RefTo
from lab.core.remote import RemoteFile
from lab.core.secret import Place, Secret
from lab.core.stages import folder
from lab.core.step import Step
from lab.core.steps_models import DropView, Fetch, Keep, MoveView, Resolve, Train
from lab.core.world import World

if TYPE_CHECKING:
    from lab.forecast import Architecture

SHA256 = "^[0-9a-f]{64}$"
SOURCES = ("path", "url", "urls", "hub", "ollama", "git", "release", "recipe", "from")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SEEN = ("view", "source", "files", "model", "license")
"""What of a view's provenance is a fact of the resource."""
SAID = ("commit", "manifest", "tag", "license", "gated")
"""What a source says of a model beside its files."""


class Model(Declaration):
    """A model's files, from exactly one source, kept once in the content-addressed store and readable by name.

        model/mine.yaml:     path: ~/models/mine           # a file or folder of this machine
        model/tiny.yaml:     url: https://host/tiny.gguf   sha256: 9f86d0…
        model/qwen.yaml:     hub: Qwen/Qwen3-8B            revision: main     exclude: ["*.bin"]
        model/phi.yaml:      ollama: phi4:14b
        model/tiny_lm.yaml:  recipe: tiny_lm               params: {steps: 500}
        model/tuned.yaml:    from: lora                    output: merged

    Its view is `STORE/models/[FAMILY/]NAME/original`. Destroying it removes the view; the bytes stay in the store until
    `lab gc`, and files that lie in Hugging Face's, Ollama's or LM Studio's folders are never altered or removed.
    """

    kind: ClassVar[str] = "model"
    pinned: ClassVar[frozenset[str]] = frozenset({
        "path", "url", "urls", "sha256", "size", "hub", "revision", "include", "exclude", "ollama", "git",
        "release", "tag",
    })  # fmt: skip
    written: ClassVar[Mapping[str, str]] = {"urls": "url"}
    aside: ClassVar[frozenset[str]] = Declaration.aside | {
        "license", "origin", "store", "token", "endpoint", "place", "family", "allow_pickle", "timeout",
        "allow_overcommit", "budget",
    }  # fmt: skip

    path: str = ""
    """A file or folder on this machine; a relative path starts at the lab's repository."""
    place: Literal["auto", "link", "copy"] = "auto"
    """For `path`: `link` leaves the bytes where they are, `copy` takes them into the store (a clone where the file
    system can); `auto` links what lies in another tool's cache and copies the rest."""
    url: Place = Field("", pattern="^((https?|file)://.+)?$")
    """The address of a single file."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """The hash the single file must have."""
    size: int | None = Field(None, ge=0)
    """The single file's bytes, where known."""
    urls: Mapping[str, RemoteFile] = {}
    """Several files by the names they shall have: `{config.json: {url: …, sha256: …}}`. Written `url:` too."""
    hub: str = Field("", pattern=r"^([\w.-]+/[\w.-]+)?$")
    """A repository of Hugging Face, of a mirror or of ModelScope: `owner/name`."""
    revision: str = "main"
    """For `hub` and `git`: branch, tag or commit; `lab lock` pins it to a commit."""
    endpoint: Place = ""
    """Another server of the same protocol: `https://hf-mirror.com`; `modelscope` for ModelScope; for `release` the API
    of another GitHub, for `ollama` another registry."""
    include: tuple[str, ...] = ()
    """Globs of the files to take; empty takes all."""
    exclude: tuple[str, ...] = ()
    """Globs of the files to leave."""
    ollama: str = ""
    """A model of Ollama's registry: `name:tag` or `namespace/name:tag`."""
    git: Place = ""
    """A git repository; files kept with LFS are fetched."""
    release: str = Field("", pattern=r"^([\w.-]+/[\w.-]+)?$")
    """A repository whose release assets are the files: `owner/name`."""
    tag: str = "latest"
    """For `release`: which release."""
    recipe: str = ""
    """A recipe that trains the model here."""
    params: Mapping[str, Any] = {}
    """What the recipe is given."""
    source_: Annotated[Address, RefTo("experiment")] | None = Field(None, alias="from")
    """The experiment that makes it."""
    output: str = "model"
    """For `from`: which of the experiment's outputs."""
    store: str = ""
    """The store it lives in, by name or tier, of `lab.stores`; empty lets the stores' rules decide."""
    family: str = Field("", pattern=r"^([\w][\w.-]*)?$")
    """A folder above its own in the store."""
    format: Literal["", "safetensors", "gguf", "mlx", "gptq", "awq", "pickle"] = ""
    """The format it must have; empty takes what it is."""
    license: str = ""
    """Its licence, where the source does not say it."""
    origin: str = ""
    """Where it was first published, for the record."""
    context: int | None = Field(None, gt=0)
    """Tokens of context it is to be used with; empty takes the model's own."""
    budget: Budget = Budget()
    """`{load_s: 5, ttft_ms: 200, decode_tps: 20}`: what `lab bench` checks; it fails where one is not kept."""
    allow_overcommit: bool = False
    """Plan it even where it does not fit the host's memory at its `context`."""
    allow_pickle: bool = False
    """Take files that may run code when loaded (.bin, .pt)."""
    token: Secret | None = None
    """The reference of a token for gated or private sources: `env:HF_TOKEN`."""
    timeout: float | None = Field(None, gt=0)
    """Seconds without a byte after which a connection is tried anew; empty takes `lab.network.timeout`, else 30."""

    @model_validator(mode="before")
    @classmethod
    def _many_urls(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("url"), Mapping):
            data = {**data, "urls": {k: {"url": v} if isinstance(v, str) else v for k, v in data["url"].items()}}
            del data["url"]
        return data

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        given = [n for n in SOURCES if getattr(self, "source_" if n == "from" else n)]
        if len(given) != 1:
            names = "path, url, hub, ollama, git, release, recipe, from"
            raise ValueError(f"give exactly one source of {names}" + (f", not {' and '.join(given)}" if given else ""))
        if (self.sha256 or self.size) and not (self.url or self.path):
            raise ValueError("`sha256` and `size` belong to a single `url` or `path`")
        if self.params and not self.recipe:
            raise ValueError("`params` belong to a `recipe`")
        return self

    # What it is

    def source(self, context: Context) -> dict[str, Any]:
        """Where the model comes from, pinned as far as its lock pins it. Pure."""
        asked, lock = self.asked(context), self.locked(context)
        pinned = {"revision": lock.get("commit"), "tag": lock.get("tag")}
        return asked | {k: v for k, v in pinned.items() if k in asked and v} | self.behind(context)

    def behind(self, context: Context) -> dict[str, str]:
        """The content hash of what lies in a path or a recipe, so that its change is seen. Pure."""
        if self.sha256 or not (self.path or self.recipe):
            return {}
        found = context.content(context.path(self.path or f"recipes/model/{self.recipe}"))
        return {"content": found} if found else {}

    def locked(self, context: Context) -> Mapping[str, Any]:
        """The lock, unless it was made for another source. Pure."""
        lock = context.lock or {}
        made_for = lock.get("source")
        return lock if not isinstance(made_for, Mapping) or made_for == self.asked(context) else {}

    def asked(self, context: Context) -> dict[str, Any]:
        """Where the model comes from, as declared. Pure."""
        if self.path:
            return {"path": context.path(self.path)} | ({"place": self.place} if self.place != "auto" else {})
        if self.url:
            return {"url": self.url}
        if self.urls:
            return {"urls": {n: f.url for n, f in sorted(self.urls.items())}}
        chosen = {"include": list(self.include), "exclude": list(self.exclude)}
        globs = {k: v for k, v in chosen.items() if v}
        at = {"endpoint": self.endpoint} if self.endpoint else {}
        if self.hub:
            return {"hub": self.hub, "revision": self.revision, **at, **globs}
        if self.git:
            return {"git": self.git, "revision": self.revision, **globs}
        if self.ollama:
            return {"ollama": self.ollama, **at}
        if self.release:
            return {"release": self.release, "tag": self.tag, **at, **globs}
        if self.recipe:
            return {"recipe": self.recipe, "params": dict(self.params)}
        return {"from": str(self.source_), "output": self.output, "digest": context.digest(str(self.source_))}

    def files(self, context: Context) -> dict[str, Facts]:
        """What is known of the files beforehand: relative path → `{url, sha256, oid, size}`. Pure."""
        locked = self.locked(context).get("files")
        if isinstance(locked, Mapping):
            return {str(n): dict(f) for n, f in locked.items()}
        return self.declared(context)

    def declared(self, context: Context) -> dict[str, Facts]:
        """What the declaration itself says of the files. Pure."""
        if self.url:
            name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(self.url).path)) or "model"
            return {name: _known(url=self.url, sha256=self.sha256, size=self.size)}
        if self.path and self.sha256:
            return {os.path.basename(context.path(self.path)): _known(sha256=self.sha256, size=self.size)}
        return {n: _known(url=f.url, sha256=f.sha256, size=f.size) for n, f in self.urls.items()}

    def root(self, context: Context) -> str:
        """The root of the store it lives in. Pure."""
        return context.path(layout.root(context.lab, context.store, context.address.name, self.store))

    def view(self, context: Context) -> str:
        """The folder of links that people and tools read. Pure."""
        return layout.view(self.root(context), context.address.name, self.family, stage=folder(context.lab))

    def shape(self, context: Context) -> Architecture | None:
        """What is known of its architecture; None where nothing is. Pure."""
        from lab.forecast import resources

        return resources.architecture(self.hub, context.lock, context.recorded(context.address))

    def network(self, context: Context) -> dict[str, Any]:
        """How patient its download is. Pure."""
        known = {**(context.lab.get("network") or {}), "timeout": self.timeout}
        return {k: v for k, v in known.items() if v is not None}

    # What a kind answers

    def inputs(self) -> Facts:
        found = dict(super().inputs())
        # Bytes whose hash is declared are the same wherever they come from.
        if self.sha256:
            found = {k: v for k, v in found.items() if k not in ("path", "url", "size")}
        elif self.urls and all(f.sha256 for f in self.urls.values()):
            found["urls"] = {n: f.sha256 for n, f in sorted(self.urls.items())}
        return found

    def contents(self, context: Context) -> Facts:
        known = self.files(context)
        if known and all(f.get("sha256") for f in known.values()):
            return {"files": {n: f["sha256"] for n, f in sorted(known.items())}}
        if self.path or self.recipe:
            return {"content": self.behind(context).get("content")}
        return {} if self.source_ else {"files": None}

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        names = list(layout.stores(context.lab, context.store))
        if self.store and layout.choose(context.lab, context.store, context.address.name, self.store) is None:
            known = ", ".join(names)
            yield f"no store or tier is called {self.store}", "store", f"declare it under `lab.stores`, or use {known}"
        if context.address.name == layout.ORIGINAL:
            yield f"a model may not be called {layout.ORIGINAL}", "", "the store uses that name; take another"
        if self.recipe and not self.behind(context):
            yield (
                f"there is no model recipe {self.recipe}",
                "recipe",
                f"write recipes/model/{self.recipe}/train.py, or name another",
            )
        found = self.locked(context).get("model")
        is_ = found.get("format") if isinstance(found, Mapping) else None
        is_ = is_ or ("gguf" if (self.path or self.url).lower().endswith(".gguf") else None)
        if self.format and is_ and is_ != self.format and not (self.format == "mlx" and is_ == "safetensors"):
            yield f"it is {is_}, not {self.format}", "format", f"declare `format: {is_}`, or name other files"
        if self.context:
            from lab.forecast import resources

            use = resources.model_use(context.lock, context.recorded(context.address), self.context)
            if use.format != "safetensors":  # originals are mostly there to be quantized
                yield from resources.problems(self.shape(context), use, context.host, "context", self.allow_overcommit)
        pickles = [n for n in self.files(context) if n.lower().endswith(PICKLES)]
        if pickles and not self.allow_pickle:
            do = "take safetensors or GGUF files, or set `allow_pickle: true`"
            yield f"{pickles[0]} may run code when it is loaded", "", do

    def wanted(self, context: Context) -> Facts:
        facts: dict[str, Any] = {"view": self.view(context), "source": self.source(context)}
        known = self.files(context)
        if known and all(f.get("sha256") for f in known.values()):
            facts["files"] = {n: f["sha256"] for n, f in sorted(known.items())}
        return facts

    def observe(self, world: World, context: Context) -> Facts | None:
        known = bool(context.recorded(context.address))
        found = views.observe(world, self.root(context), self.view(context), known=known)
        return None if found is None else {k: found[k] for k in SEEN if k in found}

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        view, old = self.view(context), (change.recorded or {}).get("view")
        if change.action is Action.DESTROY:
            yield DropView(str(old or view))
            return
        root = self.root(context)
        provenance: dict[str, Any] = {
            "address": str(context.address),
            "lab": str(context.lab.get("id", "")),
            "source": self.source(context),
        }
        if self.license:
            provenance["license"] = self.license
        recorded = (change.recorded or {}) if (change.recorded or {}).get("source") == self.source(context) else {}
        if old and old != view and recorded and (self.recipe or self.source_):
            yield MoveView(str(old), root, view, recorded.get("files") or {}, provenance)
            return
        if self.recipe:
            yield Train(self.recipe, dict(self.params))
            yield Keep(root, view, provenance=provenance, format=self.format, allow_pickle=self.allow_pickle)
        elif self.source_:
            made = context.recorded(str(self.source_)) or {}
            name = Address(self.source_).name
            folder = str(
                (made.get("outputs") or {}).get(self.output) or f"{context.state}/outputs/{name}/{self.output}"
            )
            yield Keep(root, view, folder, True, provenance, self.format, self.allow_pickle)
        else:
            others = {context.path(str(b["path"])) for b in layout.stores(context.lab, context.store).values()}
            yield Fetch(
                source=self.source(context) | ({"place": self.place} if self.path else {}),
                store=root,
                view=view,
                # What was obtained once without a lock is obtained again as it was, not as its source is by now.
                files=self.files(context) or {n: {"sha256": h} for n, h in _whole(recorded.get("files"))},
                kept=(change.observed or {}).get("files") or {},
                provenance=provenance,
                token=self.token or "",
                stores=tuple(sorted(others - {root})),
                format=self.format,
                allow_pickle=self.allow_pickle,
                network=self.network(context),
                known={k: v for k, v in {**(recorded.get("model") or {}), **self.locked(context)}.items() if k in SAID},
            )
        if old and old != view:
            yield DropView(str(old))

    def adoption(self, context: Context) -> Iterator[Step]:
        if not self.recipe and not self.source_:
            change = Change(context.address, Action.CREATE)
            yield from (replace(s, local=True) for s in self.steps(change, context) if isinstance(s, Fetch))

    def resolve(self, context: Context) -> Step | None:
        if self.recipe or self.source_ or self.path:
            return None
        return Resolve(
            self.asked(context), self.root(context), self.declared(context), self.token or "", self.network(context)
        )

    def forecast(self, change: Change, context: Context) -> Forecast:
        if change.action in (Action.DESTROY, Action.NONE, Action.ADOPT):
            return Forecast()
        from lab.forecast import resources, work

        known = self.files(context)
        sizes = [f.get("size") for f in known.values()]
        have = (change.observed or {}).get("files") or {}
        if not known or None in sizes:
            if size := resources.published_bytes(context.lock):
                took, at = work.fetching(size.value, context.host), self.volume(context)
                note = "its sizes are published, not resolved: `lab lock` pins its files"
                return replace(self.used(context), download=size, disk=size, seconds=took, volume=at, notes=(note,))
            note = "its size is not known before it is fetched; `lab lock` learns it"
            return Forecast(notes=() if self.recipe or self.source_ or self.path else (note,))
        total = float(sum(s for s in sizes if s))
        fetch = float(sum(f["size"] for n, f in known.items() if have.get(n) != f.get("sha256")))
        local = bool(self.path) or self.url.startswith("file:")
        return replace(
            self.used(context),
            download=None if local else Estimate.exact(fetch, "lock" if self.locked(context) else "declared"),
            disk=Estimate.exact(total, "lock" if self.locked(context) else "declared"),
            seconds=None if local else work.fetching(fetch, context.host),
            volume=self.volume(context),
        )

    def volume(self, context: Context) -> str:
        """The store's root where it is not the lab's first store. Pure."""
        return self.root(context) if self.root(context) != context.store else ""

    def used(self, context: Context) -> Forecast:
        """What running it as it is takes at its declared context; nothing where none is declared. Pure."""
        if not self.context:
            return Forecast()
        from lab.forecast import resources

        recorded = context.recorded(context.address)
        use = resources.model_use(context.lock, recorded, self.context)
        found = resources.run(self.shape(context), use, context.host) if use.format != "safetensors" else None
        return Forecast(memory=found.peak, tokens_per_second=found.decode) if found else Forecast()


def _whole(files: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    return ((n, h) for n, h in (files or {}).items() if re.fullmatch("[0-9a-f]{64}", h))


def _known(**values: Any) -> Facts:
    return {k: v for k, v in values.items() if v not in (None, "")}
