"""What goes into a backup: paths, consistent copies of databases, and a manifest of all of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.adapters import git
from lab.adapters.files import put
from lab.adapters.patterns import excluded, literal
from lab.app import _places, state
from lab.app.lab import Lab
from lab.core import stages
from lab.core.address import Address
from lab.core.problem import problem

MANIFEST = "manifest.json"
FETCHED = ("url", "urls", "hub", "ollama", "git", "release")
"""Sources from which a model or dataset can be fetched again."""
MAGIC = b"SQLite format 3\x00"
SKIPPED = ("cache", "work", "envs", "sdk", "backup/drill", "lock", stages.GROUP)
"""Below `state/`: made again by themselves, environments from their locks; and the state of other stages."""


@dataclass
class Saved:
    """One backup's content."""

    paths: list[str] = field(default_factory=list)
    excludes: list[str] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)


def gather(lab: Lab, name: str, settings: Mapping[str, Any], staged: Path) -> Saved:
    """The paths to snapshot, `staged` (databases and the manifest) among them."""
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True, mode=0o700)
    saved = Saved(excludes=list(settings["exclude"]))
    include = set(settings["include"])
    if "conf" in include:
        saved.paths += [str(p) for n in ("conf", "playbooks", "recipes", "docs") if (p := lab.root / n).is_dir()]
    if "state" in include:
        saved.paths.append(str(lab.state))
        saved.excludes += [str(lab.state / n) for n in SKIPPED]
    elif "experiments" in include and (lab.state / "runs").is_dir():
        saved.paths.append(str(lab.state / "runs"))
    for path in settings["paths"]:
        if not os.path.lexists(path):
            raise problem(f"{path} is to be backed up and is not there", do="make it, or take it off `paths`")
        saved.paths += dict.fromkeys((path, os.path.realpath(path)))  # restic keeps a link, not what it leads to
    again = _fetched_again(lab)
    for kind in sorted(include & {"models", "datasets"}):
        kinds = ("dataset",) if kind == "datasets" else ("model", "quantization")
        for _, place in _lie(lab, kinds):
            if os.path.exists(place):
                saved.paths.append(place)
    saved.paths = _outermost(saved.paths)
    files, databases, left, links = {}, {}, {}, {}
    folders: dict[str, int] = {}
    for path, about in _walk(saved.paths, [*saved.excludes, str(staged.parent)], folders):
        if about is None:
            with contextlib.suppress(OSError):
                links[path] = os.readlink(path)
            continue
        known = next((a for p, a in again.items() if path == p or path.startswith(p + "/")), None)
        if about.st_size >= settings["large"] and known and not settings["copy_large"]:
            left[path] = {"address": known, "size": about.st_size, "sha256": lab.world().sha256(path)}
            saved.excludes.append(literal(path))
        elif _is_database(path):
            copy = staged / "databases" / path.lstrip("/")
            copy_database(path, copy)
            databases[path] = str(copy)
            saved.excludes += [literal(path + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
        else:
            files[path] = [about.st_size, about.st_mtime_ns]
    ledger = str(lab.state / "ledger.sqlite")
    if "state" in include and ledger not in databases and not lab.kept.state():  # it is kept on a server
        databases[ledger] = str(staged / "databases" / ledger.lstrip("/"))
        state.backup(lab, Path(databases[ledger]))
    for path in databases:
        for suffix in ("-wal", "-shm", "-journal"):
            files.pop(path + suffix, None)
    lab.hashes.save()
    resources = {
        a: {"declaration": r.declaration, "facts": r.facts, "digest": r.digest} for a, r in lab.records.items()
    }
    saved.manifest = {
        "format": 1,
        "lab": lab.id,
        "backup": name,
        "at": time.time(),
        "commit": git.head(lab.root).revision,
        "overrides": list(lab.overrides),
        "root": str(lab.root),
        "state": str(lab.state),
        "places": _places.of(lab),
        "include": sorted(include),
        "paths": list(saved.paths),
        "databases": databases,
        "left": left,
        "again": sorted(a for a, r in lab.records.items() if a.kind == "env") if "state" in include else [],
        "files": files,
        "links": links,
        "folders": folders,
        "resources": resources,
    }
    put(staged / MANIFEST, json.dumps(saved.manifest, sort_keys=True).encode(), mode=0o600)
    saved.paths.append(str(staged))
    return saved


def _lie(lab: Lab, kinds: tuple[str, ...]) -> Iterator[tuple[Address, str]]:
    """Where the files of recorded resources lie: the folder itself, and what the links in it point to."""
    for address, record in lab.records.items():
        if address.kind not in kinds:
            continue
        for fact in ("view", "path", "folder"):
            place = record.facts.get(fact)
            if isinstance(place, str) and place.startswith("/"):
                yield address, place
                for link in sorted(Path(place).rglob("*")) if Path(place).is_dir() else ():
                    if link.is_symlink():
                        yield address, os.path.realpath(link)
                break


def _fetched_again(lab: Lab) -> dict[str, str]:
    """Where files lie that can be fetched again → whose they are."""
    return {
        place: str(address)
        for address, place in _lie(lab, ("model", "dataset"))
        if any(lab.records[address].declaration.get(k) for k in FETCHED)
    }


def _outermost(paths: list[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path.startswith(k.rstrip("/") + "/") for k in kept):
            kept.append(path)
    return kept


def _walk(paths: list[str], excludes: list[str], seen: dict[str, int]) -> Iterator[tuple[str, os.stat_result | None]]:
    """Every file with its stat, and every link with None; what vanishes meanwhile is passed over.

    `seen` is given the mtime that each folder had before it was listed.
    """
    out = excluded(excludes)

    def looked(path: str) -> Iterator[tuple[str, os.stat_result | None]]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                yield path, None
            elif stat.S_ISREG((found := os.stat(path)).st_mode):
                yield path, found
            elif stat.S_ISDIR(found.st_mode):
                seen[path] = found.st_mtime_ns

    for top in paths:
        yield from looked(top)
        if os.path.islink(top):
            continue
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(f for f in folders if not out(os.path.join(folder, f)))
            for name in sorted((*names, *folders)):
                if not out(path := os.path.join(folder, name)):
                    yield from looked(path)


def _is_database(path: str) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(16) == MAGIC
    except OSError:
        return False


def copy_database(path: str, to: Path) -> None:
    """A consistent copy of a live SQLite database, whatever is being written to it meanwhile."""
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as live,
            closing(sqlite3.connect(to)) as copy,
        ):
            live.backup(copy)
    except sqlite3.Error as e:
        raise problem(
            f"the database {path} cannot be copied", why=str(e), do="close what holds it, then try again"
        ) from e
