"""strays: what lies in a store and does not belong there, by the layout of `lab.core.layout`. Reads."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.adapters import store
from lab.core import layout

TOP = ("blobs", "models", "datasets", "incoming", "dropped", "stray")
STAMPS = re.compile(r"\.lab\.json|\.ledger-.+\.json")
HEX = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stray:
    """A path that breaks the layout, and how."""

    path: str
    why: str


def strays(root: Path) -> Iterator[Stray]:
    """Every path in the store that is not as the layout says; none where the store is not there."""
    if not root.is_dir():
        return
    for name in sorted(os.listdir(root)):
        if name not in TOP and not STAMPS.fullmatch(name):
            yield Stray(str(root / name), "nothing of Lab's lies there")
    yield from _blobs(root)
    yield from _views(root, Path(layout.models(str(root))))
    for file in sorted((root / "stray").rglob("*")) if (root / "stray").is_dir() else ():
        if file.is_file():
            yield Stray(str(file), "it had been put into a view; move it where it belongs, or remove it")


def _blobs(root: Path) -> Iterator[Stray]:
    top = root / "blobs"
    for folder, _, files in os.walk(top):
        for name in sorted(files):
            path = Path(folder) / name
            if path != store.path(root, name) or not HEX.fullmatch(name):
                yield Stray(str(path), "it is not named by its content")
            elif path.lstat().st_mode & 0o222:
                yield Stray(str(path), "a blob is read-only, this can be written")


def _views(root: Path, folder: Path) -> Iterator[Stray]:
    """What is wrong below `models/`: folders that are no view may hold only folders."""
    if not folder.is_dir():
        return
    record = store.provenance(folder)
    for name in sorted(os.listdir(folder)):
        path = folder / name
        mode = path.lstat().st_mode
        if name.endswith(".lab-tmp"):
            yield Stray(str(path), "it was left by a killed apply; the next `lab apply` frees it")
        elif record is not None:
            if name != layout.PROVENANCE:
                yield from _inside(root, folder, path, record)
        elif stat.S_ISDIR(mode):
            yield from _views(root, path)
        else:
            yield Stray(str(path), "it lies in no view")


def _inside(root: Path, view: Path, path: Path, record: object) -> Iterator[Stray]:
    files = record.get("files", {}) if isinstance(record, dict) else {}
    foreign = record.get("foreign", {}) if isinstance(record, dict) else {}
    mode = path.lstat().st_mode
    name = path.relative_to(view).as_posix()
    if stat.S_ISDIR(mode):
        if store.provenance(path) is not None:
            yield Stray(str(path), "it is a view inside another")
            return
        for inner in sorted(os.listdir(path)):
            yield from _inside(root, view, path / inner, record)
    elif not stat.S_ISLNK(mode):
        yield Stray(str(path), "it is a file where only links to blobs belong")
    elif name not in files:
        yield Stray(str(path), "its view does not name it")
    elif not path.exists():
        yield Stray(str(path), "it leads nowhere; `lab apply` fetches it again")
    else:
        target = os.path.normpath(path.parent / os.readlink(path))
        if target not in (foreign.get(name), str(store.path(root, files[name]))):
            yield Stray(str(path), f"it leads to {target}, not to its blob")
