"""models: what models the lab has and declares, what each is, and what it costs on disk. Reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.adapters import headers, store
from lab.app import fitting
from lab.app.lab import Lab
from lab.app.where import where
from lab.core import layout
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.problem import Problems, did_you_mean, problem

KINDS = ("model", "quantization")


@dataclass(frozen=True)
class Entry:
    """One model or quantization: what it is, and what it costs."""

    address: str
    name: str
    state: str
    """`stored`, `not there yet`, or `not declared`."""
    format: str = ""
    architecture: str = ""
    params: int | None = None
    precision: str = ""
    context: int | None = None
    license: str = ""
    bytes: int | None = None
    """Logical: the sum of its files."""
    own: int | None = None
    """Physical: the bytes on disk that nothing else in the store uses; dropping it frees these."""
    fits: bool | None = None
    """Whether it can be used on this host at its context; None where that cannot be told."""
    memory: int | None = None
    """Bytes of memory it is forecast to need."""
    store: str = ""
    view: str = ""
    source: str = ""
    tokenizer: str = ""
    chat_template: str = ""
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)


FIELDS = tuple(Entry.__dataclass_fields__)
SIZES = ("bytes", "own", "memory")


def models(lab: Lab, *filters: str) -> list[Entry]:
    """Every model and quantization that is declared or in a store and passes all filters, by address."""
    tests = [where(f, FIELDS, SIZES) for f in filters]
    return [e for e in Library(lab).entries() if all(t(e.to_json()) for t in tests)]


def show(lab: Lab, name: str) -> dict[str, Any]:
    """Everything known of one: its entry, its files with hash, bytes and place, and its headers' facts."""
    library = Library(lab)
    entries = library.entries()
    found = [e for e in entries if name in (e.address, e.name)]
    if not found:
        raise problem(
            f"no model is called {name}{did_you_mean(name, [e.name for e in entries])}", do="see `lab models`"
        )
    entry = found[0]
    files = []
    record = store.provenance(Path(entry.view)) if entry.view else None
    for file, sha256 in ((record or {}).get("files") or {}).items():
        place = Path(entry.view) / file
        real = Path(os.path.realpath(place))
        files.append(
            {
                "name": file,
                "sha256": sha256,
                "bytes": real.stat().st_size if real.exists() else None,
                "lies_in": str(real),
            }
        )
    return {**entry.to_json(), "files": files, "facts": library.facts(entry), "provenance": record}


def stats(lab: Lab) -> dict[str, Any]:
    """Logical and physical bytes, in total and per store. Physical bytes are what the file system allots."""
    library = Library(lab)
    out: dict[str, Any] = {"stores": {}, "logical": 0, "physical": 0, "foreign": 0}
    for name, root in library.roots.items():
        logical = foreign = views = 0
        for folder, record in store.views(root):
            views += 1
            for file in record.get("files", {}):
                path = folder / file
                size = path.stat().st_size if path.exists() else 0
                logical += size
                if file in (record.get("foreign") or {}):
                    foreign += size
        physical = sum(b.stat().st_blocks * 512 for b in _blobs(root))
        row = {"path": str(root), "views": views, "logical": logical, "physical": physical, "foreign": foreign}
        out["stores"][name] = row | {"there": store.stamped(root) is not None}
        for key in ("logical", "physical", "foreign"):
            out[key] += row[key]
    out["ratio"] = round(out["physical"] / out["logical"], 4) if out["logical"] else None
    return out


class Library:
    """The views in all stores of a lab, beside what it declares and records."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        settings = lab.head.get("lab", {})
        self.settings: Mapping[str, Any] = settings
        known = layout.stores(settings, str(lab.store))
        self.roots = {n: lab.root / Path(os.path.expanduser(str(b["path"]))) for n, b in known.items()}

    @cached_property
    def views(self) -> dict[str, tuple[Path, Path, Mapping[str, Any]]]:
        """View folder → store root, folder, provenance."""
        return {str(f): (root, f, r) for root in self.roots.values() for f, r in store.views(root)}

    @cached_property
    def users(self) -> dict[tuple[str, str], int]:
        """How many views of a store link to each of its blobs."""
        count: dict[tuple[str, str], int] = {}
        for root, _, record in self.views.values():
            for sha256 in set(record.get("files", {}).values()):
                count[str(root), sha256] = count.get((str(root), sha256), 0) + 1
        return count

    def entries(self) -> list[Entry]:
        """Every declared or stored model, by address."""
        out, seen = [], set()
        for address, declaration in self.lab.declarations.items():
            if address.kind not in KINDS:
                continue
            folder = self.folder(address)
            if folder in self.views:
                seen.add(folder)
                out.append(self.entry(address, "stored", folder))
            else:
                out.append(self.entry(address, "not there yet", "", declaration))
        for folder, (_, _, record) in self.views.items():
            if folder in seen or record.get("lab") not in (None, "", self.lab.id):
                continue
            address = Address(record.get("address") or f"model.{Path(folder).parent.name}")
            out.append(self.entry(address, "not declared", folder))
        return sorted(out, key=lambda e: (e.address, e.view))

    def folder(self, address: Address) -> str:
        """The view a declared resource has, or would have; empty where it says none."""
        record = self.lab.records.get(address)
        if record and record.facts.get("view"):
            return str(record.facts["view"])
        try:
            wanted = self.lab.declarations[address].wanted(self.lab.context(address))
        except Problems:
            return ""
        return str(wanted.get("view") or "")

    def entry(self, address: Address, state: str, folder: str, declaration: Any = None) -> Entry:
        """The row of one model."""
        declaration = declaration or self.lab.declarations.get(address)
        root, _, record = self.views.get(folder, (None, None, {}))
        found: Mapping[str, Any] = self.told(address, folder, record)
        files = record.get("files") or {}
        foreign = record.get("foreign") or {}
        size = _sum(Path(folder) / f for f in files) if folder else found.get("bytes")
        own = {s for f, s in files.items() if f not in foreign and self.users.get((str(root), s), 0) < 2}
        context = getattr(declaration, "context", None) or found.get("context")
        memory, fits = self.need(found, size, context)
        if address.kind == "quantization" and declaration is not None:
            found = self.inherited(declaration) | dict(found) | self.named(declaration)
            if not folder:
                size, memory, fits = self.forecast(address, declaration)
                context = context or found.get("context")
        source = record.get("source") or {}
        return Entry(
            address=address,
            name=address.name,
            state=state,
            format=str(found.get("format") or getattr(declaration, "format", "") or ""),
            architecture=str(found.get("architecture") or ""),
            params=found.get("params"),
            precision=str(found.get("precision") or ""),
            context=context,
            license=str(record.get("license") or getattr(declaration, "license", "") or found.get("license") or ""),
            bytes=size,
            own=sum(_allotted(store.path(root, s)) for s in own) if root else None,
            fits=fits,
            memory=memory,
            store=next((n for n, r in self.roots.items() if r == root), ""),
            view=folder,
            source=_short(source),
            tokenizer=str(found.get("tokenizer") or ""),
            chat_template=str(found.get("chat_template") or ""),
            description=str(getattr(declaration, "description", "")),
        )

    def facts(self, entry: Entry) -> Mapping[str, Any]:
        """What the headers said of a listed model."""
        return self.told(Address(entry.address), entry.view, self.views.get(entry.view, (None, None, {}))[2])

    def told(self, address: Address, folder: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is known of a model: from its provenance, else its files' headers, else its lock."""
        if isinstance(record.get("model"), Mapping) and record["model"].get("format"):
            return dict(record["model"])
        if folder:
            try:
                return headers.facts(
                    {f: Path(folder) / f for f in record.get("files", {}) if (Path(folder) / f).is_file()}
                )
            except (Problems, OSError):
                return {}
        if address in self.lab.declarations:
            lock = self.lab.context(address).lock or {}
            return lock.get("model") or {}
        return {}

    def inherited(self, declaration: Any) -> dict[str, Any]:
        """What a quantization has from its original, and the precision it declares."""
        out: dict[str, Any] = {}
        for address in declaration.requires():
            if address.kind == "model" and address in self.lab.declarations:
                folder = self.folder(address)
                found = self.told(address, folder if folder in self.views else "", self.record(folder))
                names = ("architecture", "params", "context", "license", "tokenizer", "chat_template")
                license_ = getattr(self.lab.declarations[address], "license", "")
                out |= {k: found[k] for k in names if k in found} | ({"license": license_} if license_ else {})
        bits = getattr(declaration, "bits", None)
        return out | {"precision": f"{bits}-bit" if bits else ""}

    def named(self, declaration: Any) -> dict[str, Any]:
        """The type a quantization was asked for: `Q4_K_M` says more than `Q4_K`, the type most of its bytes have."""
        return {"precision": declaration.type} if getattr(declaration, "type", "") else {}

    def record(self, folder: str) -> Mapping[str, Any]:
        """A view's provenance; empty where there is no view."""
        return self.views[folder][2] if folder in self.views else {}

    def forecast(self, address: Address, declaration: Any) -> tuple[int | None, int | None, bool | None]:
        """Bytes on disk and in memory that making it is forecast to take, and whether it fits this host."""
        try:
            cost = declaration.forecast(Change(address, Action.CREATE), self.lab.context(address))
        except Problems:
            return None, None, None
        size, memory = (int(e.value) if e else None for e in (cost.disk, cost.memory))
        most = fitting.limit(self.lab.host)
        return size, memory, None if memory is None or most is None else memory <= most

    def need(self, found: Mapping[str, Any], size: int | None, context: int | None) -> tuple[int | None, bool | None]:
        """Bytes of memory to use a model at its context, and whether this host has them; None where not known."""
        return fitting.need(found, size, context, self.lab.host)


def _blobs(root: Path) -> Iterator[Path]:
    yield from Path(layout.blobs(str(root))).glob("??/" + "?" * 64)


def _allotted(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except OSError:
        return 0


def _sum(files: Iterator[Path]) -> int:
    return sum(f.stat().st_size for f in files if f.exists())


def _short(source: Mapping[str, Any]) -> str:
    for kind in ("hub", "ollama", "git", "release", "url", "path", "recipe", "from"):
        if kind in source:
            revision = str(source.get("revision") or source.get("tag") or "")[:12]
            return f"{kind}: {source[kind]}" + (f" @ {revision}" if revision else "")
    return "url" if "urls" in source else ""
