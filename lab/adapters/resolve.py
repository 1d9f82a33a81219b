"""Resolve: what a model's source stands for now, as `lab lock` commits it: commit, hashes, sizes, facts from headers.

Weights are not downloaded for it: their hashes come from the source, their headers from the first bytes of each file.
Where a source gives no hash (small files of a hub, a bare URL), the file itself is fetched into the store and hashed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from lab.adapters import caches, download, fetch, gguf_header, headers, http, sources, store, tensors_header
from lab.adapters.download import Item
from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.step import Stage
from lab.core.steps_models import Resolve

MOST = 512 << 20
"""Bytes of the longest header that is fetched."""


def resolve(step: Resolve, stage: Stage) -> Facts:
    """The lock of a model: `{source, commit, files, model, license, …}`. Raises Problems."""
    root = Path(step.store)
    items, learned = sources.items(step, stage)
    if not items:
        raise problem(f"{stage.address} has no files", why="its source lists none that match", do="check `include`")
    net = fetch.patience(step.network, stage.offline)
    files: dict[str, dict[str, Any]] = {}
    places: dict[str, Path] = {}
    for done, item in enumerate(items):
        stage.check()
        stage.progress(done, len(items), "files")
        sha256, size = item.sha256, item.size
        if item.path:
            sha256 = sha256 or store.digest(Path(item.path))
            places[item.name] = Path(item.path)
        elif not sha256 or _small(item):
            store.stamp(root, "")
            try:
                sha256 = _held(item, root) or download.download(item, root, net, stage.check, lambda _: None)
            except http.Refused as e:
                raise sources.refused(e, step) from e
            places[item.name] = store.path(root, sha256)
            size = places[item.name].stat().st_size
        files[item.name] = {"sha256": sha256, "size": size} | _address(step, item)
    lock: dict[str, Any] = {
        "resolved": True,
        "source": dict(step.source),
        **learned,
        "files": dict(sorted(files.items())),
    }
    lock["model"] = _facts(items, places, stage.offline) | {"bytes": sum(int(f["size"] or 0) for f in files.values())}
    if not lock.get("license") and (found := lock["model"].get("license")):
        lock["license"] = found
    return lock


def _address(step: Resolve, item: Item) -> dict[str, str]:
    """The URL, where it does not follow from the source."""
    plain = "ollama" in step.source or ("hub" in step.source and "FilePath=" not in item.url)
    return {} if plain or not item.url else {"url": item.url}


def _small(item: Item) -> bool:
    """Whether the file tells what the model is, and is small enough to read whole."""
    name = item.name.rpartition("/")[2]
    known = ("config.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.json", "README.md")
    return name in known and (item.size or 0) <= headers.SMALL


def _held(item: Item, root: Path) -> str:
    blob = store.path(root, item.sha256) if item.sha256 else None
    return item.sha256 if blob is not None and blob.is_file() and store.digest(blob) == item.sha256 else ""


def _facts(items: list[Item], places: dict[str, Path], offline: bool) -> dict[str, Any]:
    """What the model is, from the files at hand and the first bytes of those that are not."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        at = dict(places)
        for item in items:
            if item.name in at or not item.name.lower().endswith((".safetensors", ".gguf")):
                continue
            stub = Path(folder) / item.name
            stub.parent.mkdir(parents=True, exist_ok=True)
            if not _header(item, stub, offline):
                return {}
            at[item.name] = stub
        try:
            found = headers.facts(at)
        except Problems:
            return {}
    return {k: v for k, v in found.items() if k not in ("bytes", "files")}


def _header(item: Item, stub: Path, offline: bool) -> bool:
    """The file's header lies in `stub`, a sparse file as long as the whole; False where it cannot be had."""
    reads = gguf_header.parse if item.name.lower().endswith(".gguf") else tensors_header.parse
    local = caches.found(item.sha256)
    size = 1 << 16
    while size <= MOST:
        try:
            data = _first(item, local, size, offline)
            reads(data)
        except gguf_header.Short:
            if len(data) < size:
                return False
            size *= 8
            continue
        except (gguf_header.Broken, http.Transient, http.Refused, *http.BROKEN):
            return False
        stub.write_bytes(data)
        os.truncate(stub, max(item.size or 0, len(data)))
        return True
    return False


def _first(item: Item, local: Path | None, size: int, offline: bool) -> bytes:
    if local is not None:
        with open(local, "rb") as f:
            return f.read(size)
    with http.open_(item.url, {**item.headers, "Range": f"bytes=0-{size - 1}"}, offline=offline) as response:
        return response.read(size)
