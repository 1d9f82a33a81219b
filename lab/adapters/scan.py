"""Scan: the models that other tools already keep on this machine, as declarations that adopt them. Reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters import caches, hub, ollama
from lab.core.units import size

WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True, slots=True)
class Found:
    """One model that is here: its kind, a name, the block that adopts it, and what to tell of it."""

    kind: str
    name: str
    block: Mapping[str, Any]
    note: str


def scan(home: Path) -> list[Found]:
    """What Hugging Face's cache, Ollama and LM Studio hold below `home`, largest first within each.

    For one's own home the tools' environment variables are heeded. Nothing is opened but small text files.
    """
    own = None if home == Path.home() else home
    return [
        *_sorted(_huggingface(caches.huggingface(own))),
        *_sorted(_ollama(caches.ollama(own))),
        *_sorted(found for folder in caches.lmstudio(own) for found in _lmstudio(folder, home)),
    ]


def _sorted(found: Iterator[tuple[int, Found]]) -> list[Found]:
    return [f for _, f in sorted(found, key=lambda p: (-p[0], p[1].name))]


def _huggingface(cache: Path) -> Iterator[tuple[int, Found]]:
    for repository, commit, snapshot in hub.snapshots(cache):
        files = {f.relative_to(snapshot).as_posix(): f for f in sorted(snapshot.rglob("*")) if f.is_file()}
        chosen = hub.choose(files, {})
        if not any(n.endswith(WEIGHTS) for n in chosen):
            continue
        total = sum(files[n].stat().st_size for n in chosen)
        block = {"hub": repository, "revision": commit, "include": sorted(chosen)}
        note = f"found in {cache / caches.folder(repository)}: {size(total)}, left where it is"
        yield total, Found("model", repository.rpartition("/")[2], block, note)


def _ollama(folder: Path) -> Iterator[tuple[int, Found]]:
    for name, manifest in ollama.models(folder):
        try:
            layers = list(ollama.layers(json.loads(manifest.read_bytes())))
        except (OSError, ValueError, RecursionError):
            continue
        if not all((folder / "blobs" / f"sha256-{digest}").is_file() for _, digest, _ in layers):
            continue
        total = sum(bytes_ for _, _, bytes_ in layers)
        note = f"found in {folder}: {size(total)}, left where it is"
        yield total, Found("model", name.rpartition("/")[2].replace(":", "_"), {"ollama": name}, note)


def _lmstudio(folder: Path, home: Path) -> Iterator[tuple[int, Found]]:
    for repository in sorted(p for p in folder.glob("*/*") if p.is_dir()):
        files = [f for f in sorted(repository.iterdir()) if f.is_file()]
        ggufs = [f for f in files if f.suffix == ".gguf" and "mmproj" not in f.name]
        split = any(re.search(r"-\d{5}-of-\d{5}\.gguf$", f.name) for f in ggufs)
        if split or any(f.suffix == ".safetensors" for f in files):
            yield _path(repository, repository.name, sum(f.stat().st_size for f in files), home)
            continue
        for file in ggufs:
            yield _path(file, file.stem, file.stat().st_size, home)


def _path(path: Path, name: str, total: int, home: Path) -> tuple[int, Found]:
    shown = f"~/{path.relative_to(home)}" if home == Path.home() and path.is_relative_to(home) else str(path)
    block = {"path": shown, "place": "link"}
    return total, Found("model", name, block, f"found in LM Studio's folder: {size(total)}, left where it is")
