"""dataset: the versions of a dataset, what is in them, and what came of them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.adapters import datasets, reshape, rows, versions
from lab.adapters.profile import profile
from lab.app.lab import Lab
from lab.core.address import Address, is_name
from lab.core.problem import did_you_mean, problem
from lab.kinds.dataset import SOURCES


def named(lab: Lab, name: str) -> tuple[Any, Path, str]:
    """Declaration, vault and version of `NAME` or `NAME@VERSION`; raises Problems."""
    bare, _, version = name.removeprefix("dataset.").partition("@")
    known = [a.name for a in lab.declarations if a.kind == "dataset"]
    if bare not in known:
        raise problem(f"`{bare}` is no dataset{did_you_mean(bare, known)}", do="see `lab dataset list`")
    address = Address.of("dataset", bare)
    declaration: Any = lab.declaration(address)
    return declaration, Path(declaration.vault(lab.context(address))), version


def listed(lab: Lab) -> list[dict[str, Any]]:
    """Every declared dataset with its newest version."""
    out = []
    for address in sorted(a for a in lab.declarations if a.kind == "dataset"):
        _, vault, _ = named(lab, address.name)
        known = versions.every(vault)
        newest = known[max(known)] if known else {}
        told = newest.get("profile") or {}
        out.append(
            {
                "name": address.name,
                "version": newest.get("version"),
                "format": newest.get("format"),
                "rows": told.get("rows"),
                "columns": list(told.get("columns") or {}),
                "bytes": newest.get("bytes"),
                "tags": versions.tags(vault),
            }
        )
    return out


def history(lab: Lab, name: str) -> list[dict[str, Any]]:
    """Every version of a dataset, newest first."""
    _, vault, _ = named(lab, name)
    return [m for _, m in sorted(versions.every(vault).items(), reverse=True)]


def stats(lab: Lab, name: str) -> dict[str, Any]:
    """Rows, duplicates and every column of a version."""
    _, vault, version = named(lab, name)
    found = versions.find(vault, version)
    return found.get("profile") or profile(_rows(vault, found)).to_json()


def head(lab: Lab, name: str, count: int = 5) -> list[dict[str, Any]]:
    """The first rows of a version."""
    _, vault, version = named(lab, name)
    return list(itertools.islice(_rows(vault, versions.find(vault, version)), count))


def read(lab: Lab, name: str, role: str) -> Iterator[dict[str, Any]]:
    """The rows a role may see: filtered, columns left out, values masked; a Problem where it may see none."""
    declaration, vault, version = named(lab, name)
    policy = declaration.policy
    if role not in policy:
        raise problem(
            f"{role} may not read dataset {name}", why="its policy does not name that role", do="ask its owner"
        )
    rule: Mapping[str, Any] = policy[role]
    keep = reshape.test(str(rule["where"])) if rule.get("where") else lambda row: True
    shown, hidden, masked = rule.get("columns"), set(rule.get("deny") or ()), set(rule.get("mask") or ())
    for row in _rows(vault, versions.find(vault, version)):
        if keep(row):
            yield {
                k: _masked(name, k, v) if k in masked else v
                for k, v in row.items()
                if k not in hidden and (not shown or k in shown)
            }


def _masked(name: str, column: str, value: Any) -> Any:
    """A value that stands for another: equal for equal ones, and says nothing of it."""
    if value is None:
        return None
    return "masked-" + hashlib.blake2b(f"{name}\0{column}\0{value}".encode(), digest_size=6).hexdigest()


def _rows(vault: Path, manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from lab.adapters import store

    format = str(manifest["format"])
    if format not in rows.ROWED:
        raise problem(f"dataset {manifest['name']} has no rows", why=f"it is {format}")
    for name, sha256 in manifest["files"].items():
        yield from rows.read(store.path(vault, sha256), format, name)


def diff(lab: Lab, name: str, a: str, b: str) -> dict[str, list[str]]:
    """Files added, removed and changed between two versions."""
    _, vault, _ = named(lab, name)
    return versions.diff(vault, a, b)


def tag(lab: Lab, name: str, word: str) -> int:
    """The version `NAME@N` has a tag."""
    _, vault, version = named(lab, name)
    found = versions.find(vault, version)
    versions.tag(vault, word, int(found["version"]))
    return int(found["version"])


def checkout(lab: Lab, name: str, to: Path | None = None) -> Path:
    """The bytes of a version are in a folder of their own: `to`, or beside the view as `checkout-N`."""
    from lab.adapters import clone, store

    _, vault, version = named(lab, name)
    found = versions.find(vault, version)
    target = to or vault / f"checkout-{found['version']}"
    for file, sha256 in found["files"].items():
        blob = store.path(vault, sha256)
        if not blob.exists():
            raise problem(f"version {found['version']} of {name} is not whole", why=f"{file} ({sha256}) is gone")
        path = target / file
        if path.exists() and store.digest(path) != sha256 and to is not None:
            raise problem(f"{path} is in the way", why="it has other bytes", do="give an empty folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        clone.copy(blob, path)
        path.chmod(0o644)
    return target


def merge(lab: Lab, name: str, a: str, b: str) -> int:
    """A new version with the files of two; a Problem where both changed one."""
    _, vault, _ = named(lab, name)
    return versions.merge(vault, a, b)


def add(lab: Lab, path: Path, name: str = "") -> tuple[Path, str]:
    """The file or folder is declared as a dataset: its YAML is written; returns that and the format found."""
    path = path.absolute()
    if not path.exists():
        raise problem(f"{path} is not there", do="name a file or folder that exists")
    word = name or path.stem.replace(" ", "_").replace(".", "_").lower()
    if not is_name(word):
        raise problem(f"`{word}` is no name", do="give one: `lab dataset add PATH --name NAME`")
    conf = lab.conf / "dataset" / f"{word}.yaml"
    if conf.exists():
        raise problem(f"{conf} exists", do="take another name, or edit it")
    format = rows.sniff(datasets.found(path))
    inside = path.is_relative_to(lab.root)
    conf.parent.mkdir(parents=True, exist_ok=True)
    told = str(path.relative_to(lab.root) if inside else path)
    conf.write_text(f"path: {json.dumps(told, ensure_ascii=False)}\nformat: {format}\n", encoding="utf-8")
    return conf, format


def lineage(lab: Lab, name: str) -> dict[str, Any]:
    """What a resource is made from and what is made from it, directly and not: `{nodes, edges, datasets}`.

    `datasets` says of each dataset among them where it comes from, what is done to it step by step, and what its
    columns mean.
    """
    address = Address(name)
    known = {*lab.declarations}
    if address not in known:
        raise problem(f"`{name}` is not declared{did_you_mean(name, known)}", do="give an address: dataset.NAME")
    needs = {a: tuple(d.requires()) for a, d in lab.declarations.items()}
    edges: dict[tuple[str, str], None] = {}

    def walk(start: str, next_: Any) -> None:
        todo, seen = [start], {start}
        while todo:
            at = todo.pop()
            for other, edge in next_(at):
                edges[edge] = None
                if other not in seen:
                    seen.add(other)
                    todo.append(other)

    walk(address, lambda a: [(n, (str(n), str(a))) for n in needs.get(Address(a), ())])
    walk(address, lambda a: [(o, (str(a), str(o))) for o, ns in needs.items() if Address(a) in ns])
    nodes = sorted({address, *(x for e in edges for x in e)})
    made = {n: _made(lab.declarations[Address(n)]) for n in nodes if n.startswith("dataset.")}
    return {"nodes": nodes, "edges": sorted([list(e) for e in edges]), "datasets": made}


def _made(declared: Any) -> dict[str, Any]:
    """Source, transforms and notes of a declared dataset. Pure."""
    source = {n: getattr(declared, "source_" if n == "from" else n) for n in SOURCES}
    told = {n: list(v) if isinstance(v, tuple) else str(v) for n, v in source.items() if v}
    return {"source": told, "transform": [dict(step) for step in declared.transform], "columns": dict(declared.notes)}


def mermaid(graph: Mapping[str, Any]) -> str:
    """The lineage as a Mermaid graph. Pure."""
    ids = {n: f"n{i}" for i, n in enumerate(graph["nodes"])}
    known = graph["datasets"]

    def label(node: str) -> str:
        steps = [next(iter(step)) for step in known.get(node, {}).get("transform", ())]
        source = [f"{k} {v}" for k, v in known.get(node, {}).get("source", {}).items()]
        return "<br>".join([node, *source, *([", ".join(steps)] if steps else [])]).replace('"', "'")

    lines = ["graph LR", *(f'  {ids[n]}["{label(n)}"]' for n in graph["nodes"])]
    return "\n".join([*lines, *(f"  {ids[a]} --> {ids[b]}" for a, b in graph["edges"])])
