"""Datasets: a declared source becomes a version: blobs, a manifest, and a view of links."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.adapters import http, reshape, rows, store, versions
from lab.adapters.acl import allow
from lab.adapters.answers import Entry, told
from lab.adapters.download import Item, Net, download
from lab.adapters.experiments import recipes
from lab.adapters.profile import broken, key_of, profile
from lab.core.facts import Facts, canonical
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_runs import DropDataset, Version

SPLITS = ("train", "valid", "validation", "dev", "test", "eval")
_MAKE = (
    "import sys,json,importlib,pathlib\n"
    "sys.path.insert(0, sys.argv[1]); m, _, f = sys.argv[2].partition(':')\n"
    "getattr(importlib.import_module(m), f)(pathlib.Path(sys.argv[3]), **json.loads(sys.argv[4]))\n"
)


def version(step: Version, stage: Stage) -> Facts:
    """The dataset's content is a version and its view shows it; raises Problems where its checks fail."""
    vault = Path(step.vault)
    store.enter(stage.store, "", stage.state)
    store.stamp(vault, "")
    files = obtain(step, stage, vault)
    if not files:
        raise problem(f"dataset.{step.name} has no files", why=_origin(step), do="check its source and `include`")
    format = step.format or rows.sniff(files)
    if step.transform:
        files, format = reshaped(step, stage, files, format), "jsonl" if format in ("text", "images") else format
    told: dict[str, Any] = {}
    if format in rows.ROWED:
        told = profile(_every(files, format)).to_json()
    told["files"] = len(files)
    wrong = list(judged(step, files, format))
    if wrong and not step.waive:
        raise problem(
            f"dataset.{step.name} is not as its checks say",
            why="; ".join(wrong[:5]),
            do="mend the data, or set `waive: true` to take it as it is",
        )
    made: dict[str, Any] = {}
    if step.splits:
        files, made = split(step, stage, files, format)
    stage.check()
    kept = {name: _blob(vault, path) for name, path in sorted(files.items())}
    manifest = {
        "name": step.name,
        "digest": step.digest,
        "format": format,
        "files": kept,
        "bytes": sum(p.stat().st_size for p in files.values()),
        "profile": told,
        "broken": wrong,
        "splits": made,
        "source": dict(step.source),
        "transform": list(step.transform),
        "created": time.time(),
    }
    number = versions.add(vault, manifest)
    for tag, n in step.tags.items():
        versions.tag(vault, tag, int(n))
    versions.show(vault, Path(step.view), number, step.digest, step.access)
    allow(vault, step.access)
    shutil.rmtree(stage.scratch, ignore_errors=True)
    return {"version": number, "rows": told.get("rows"), "files": len(files)}


def drop(step: DropDataset, stage: Stage) -> None:
    """The view is gone; versions stay."""
    store.drop(Path(step.view))


# --- where it comes from -----------------------------------------------------------------------------------------


def obtain(step: Version, stage: Stage, vault: Path) -> dict[str, Path]:
    """The source's files: relative path → where each lies now; raises Problems where it cannot be had."""
    source = step.source
    if "merge" in source:
        return _merged(step.name, {str(a): Path(str(p)) for a, p in source["merge"].items()})
    if "call" in source:
        return _generated(step, stage)
    if "url" in source:
        url = str(source["url"])
        name = os.path.basename(url.partition("?")[0].partition("#")[0]) or "data"
        return {name: _download(stage, vault, Item(name, url, sha256=str(source.get("sha256") or "")))}
    if "hub" in source:
        return _hub(source, stage, vault)
    path = Path(str(source["path"]))
    if not path.exists():
        raise problem(f"dataset.{step.name}: {path} is not there", why=_origin(step), do="make it first")
    return found(path, source.get("include") or ())


def found(path: Path, include: Iterable[str] = ()) -> dict[str, Path]:
    """The files of a file or folder by relative path; git's and Lab's own left out. Reads."""
    path = path.resolve()
    if path.is_file():
        return {path.name: path}
    globs = tuple(include)
    out = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        hidden = any(part in (".git", ".lab.json", ".DS_Store") for part in name.split("/"))
        if file.is_file() and not hidden and (not globs or any(fnmatch.fnmatchcase(name, g) for g in globs)):
            out[name] = file
    return out


def _merged(name: str, sources: Mapping[str, Path]) -> dict[str, Path]:
    files: dict[str, tuple[str, Path]] = {}
    for address, folder in sources.items():
        if not folder.exists():
            raise problem(f"dataset.{name}: {address} is not there", do=f"run `lab apply --only {address}`")
        for file, path in found(folder).items():
            other = files.get(file)
            if other is not None and store.digest(other[1]) != store.digest(path):
                raise problem(
                    f"dataset.{name} cannot merge {other[0]} and {address}",
                    why=f"both have {file}, with different content",
                    do="rename one of the files",
                )
            files[file] = (address, path)
    return {file: path for file, (_, path) in files.items()}


def _generated(step: Version, stage: Stage) -> dict[str, Path]:
    folder = stage.scratch / "made"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = step.source
    words = [str(source["root"]), str(source["call"]), str(folder), json.dumps(source.get("params") or {})]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*recipes(), str(Path(__file__).parents[2])])}
    done = subprocess.run(
        [sys.executable, "-c", _MAKE, *words], capture_output=True, text=True, cwd=source["root"], env=env
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it exited with {done.returncode}"])[-1]
        raise problem(f"dataset.{step.name}: {source['call']} failed", why=last, do="run it by hand to see more")
    return found(folder)


def _download(stage: Stage, vault: Path, item: Item) -> Path:
    done = [0]

    def moved(n: int) -> None:
        done[0] += n
        stage.progress(done[0], item.size)

    return store.path(vault, download(item, vault, Net(offline=stage.offline), stage.check, moved))


def _hub(source: Facts, stage: Stage, vault: Path) -> dict[str, Path]:
    base = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    repo, revision = source["hub"], source.get("revision") or "main"
    url = f"{base}/api/datasets/{repo}/tree/{revision}?recursive=true"
    listed, _ = http.json_(url, offline=stage.offline)
    globs = tuple(source.get("include") or ())
    out = {}
    entries: list[Entry] = told(list[Entry], listed, url)
    for entry in entries:
        name = entry.path
        if entry.type == "file" and (not globs or any(fnmatch.fnmatchcase(name, g) for g in globs)):
            sha256 = entry.lfs.oid.removeprefix("sha256:") if entry.lfs else ""
            item = Item(
                name,
                f"{base}/datasets/{repo}/resolve/{revision}/{name}",
                sha256=sha256,
                oid="" if sha256 else entry.oid or "",
                size=entry.size,
            )
            out[name] = _download(stage, vault, item)
    return out


# --- what becomes of it ------------------------------------------------------------------------------------------


def reshaped(step: Version, stage: Stage, files: Mapping[str, Path], format: str) -> dict[str, Path]:
    """The transformed rows as one file; each step's rows are kept by the hash of all that went into them."""
    if format not in rows.ROWED:
        raise problem(f"dataset.{step.name} has no rows to transform", why=f"it is {format}", do="declare its `format`")
    kept = Path(step.vault) / "steps"
    kept.mkdir(exist_ok=True)
    key = hashlib.sha256(canonical([format, {n: store.digest(p) for n, p in files.items()}])).hexdigest()
    current: Path | None = None
    for n, one in enumerate(step.transform):
        code = _code(one, stage.root)
        key = hashlib.sha256(canonical([key, dict(one), code, step.seed])).hexdigest()
        path = kept / f"{key[:32]}.jsonl"
        if not path.exists():
            before = rows.read(current, "jsonl") if current else _every(files, format)
            fresh = path.with_suffix(f".{os.getpid()}.new")
            rows.write(fresh, reshape.apply(one, before, seed=step.seed, root=stage.root), "jsonl")
            os.replace(fresh, path)
            stage.say(f"transform {n + 1} of {len(step.transform)}: {next(iter(one))}")
        current = path
        stage.check()
    assert current is not None
    suffix = {"csv": "csv", "tsv": "tsv", "parquet": "parquet"}.get(format, "jsonl")
    if suffix == "jsonl":
        return {"data.jsonl": current}
    out = stage.scratch / f"data.{suffix}"
    rows.write(out, rows.read(current, "jsonl"), suffix)
    return {out.name: out}


def _code(step: Mapping[str, Any], root: Path) -> str:
    if "map" not in step:
        return ""
    file = root / (str(step["map"]).partition(":")[0].replace(".", "/") + ".py")
    return store.digest(file) if file.is_file() else ""


def judged(step: Version, files: Mapping[str, Path], format: str) -> Iterator[str]:
    """What is not as the checks say, and what lies in two of its splits at once. Reads."""
    if format in rows.ROWED:
        if any(c != "files" for c in step.checks):
            yield from broken(step.checks, profile(_every(files, format)), _every(files, format))
        yield from leaks(files, format)
    elif any(c != "files" for c in step.checks):
        yield f"it is {format}, so its rows cannot be checked"
    wanted = step.checks.get("files")
    if wanted is not None and (len(files) != wanted if isinstance(wanted, int) else set(wanted) - set(files)):
        yield f"it has {len(files)} files, not {wanted}"


def leaks(files: Mapping[str, Path], format: str) -> Iterator[str]:
    """Rows that lie in two splits, where files are named after splits (`train.jsonl`, `test/…`). Reads."""
    seen: dict[str, str] = {}
    shared: dict[tuple[str, str], int] = {}
    for name, path in files.items():
        part = next((w for w in name.lower().replace(".", "/").replace("-", "/").split("/") if w in SPLITS), "")
        if not part:
            continue
        for row in rows.read(path, format, name):
            key = key_of(row)
            other = seen.setdefault(key, part)
            if other != part:
                pair = (min(other, part), max(other, part))
                shared[pair] = shared.get(pair, 0) + 1
    for (a, b), count in sorted(shared.items()):
        yield f"{count} rows lie in both {a} and {b}"


def split(
    step: Version, stage: Stage, files: Mapping[str, Path], format: str
) -> tuple[dict[str, Path], dict[str, int]]:
    """A file per split, each row where its hash falls; and how many rows each has."""
    if format not in rows.ROWED:
        raise problem(f"dataset.{step.name} has no rows to split", why=f"it is {format}", do="declare its `format`")
    suffix = format if format in ("csv", "tsv", "parquet") else "txt" if format == "text" else "jsonl"
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in step.splits}
    for row in _every(files, format):
        at = reshape.fraction(row.get(step.split_by) if step.split_by else row, step.seed)
        total = 0.0
        for name, share in step.splits.items():
            total += share
            if at < total or name == list(step.splits)[-1]:
                parts[name].append(row)
                break
    out = {}
    for name, listed in parts.items():
        path = stage.scratch / f"{name}.{suffix}"
        rows.write(path, listed, "text" if format == "text" else suffix)
        out[path.name] = path
    return out, {name: len(listed) for name, listed in parts.items()}


def _every(files: Mapping[str, Path], format: str) -> Iterator[dict[str, Any]]:
    for name, path in sorted(files.items()):
        if format == "images" or not name.startswith(("README", "LICENSE")):
            yield from rows.read(path, format, name)


def _blob(vault: Path, path: Path) -> str:
    sha256 = store.digest(path)
    blob = store.path(vault, sha256)
    if not blob.exists() or (blob != path and store.digest(blob) != sha256):
        store.copy(vault, path, sha256)
    return sha256


def _origin(step: Version) -> str:
    name = next(n for n in ("from", "merge", "call", "url", "hub", "path") if n in step.source)
    return f"its source is {name}: {step.source[name]}"
