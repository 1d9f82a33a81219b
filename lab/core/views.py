"""Views: what a folder of links in the store holds, seen through the world."""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator, Mapping
from typing import Any

from lab.core import layout
from lab.core.problem import Unknown
from lab.core.world import World

GONE = "gone"
"""Stands for the hash of a file whose link leads nowhere."""


def observe(world: World, store: str, folder: str, *, known: bool = False) -> dict[str, Any] | None:
    """What the view holds: its `.lab.json`, with `files` as they are now (relative path → sha256); None where absent.

    A link that leads elsewhere than its provenance says, an ordinary file or a missing one is told in place of a hash.
    With `known` (the ledger has it) a store that is not there is Unknown, never absence. Raises Unknown. Reads.
    """
    data = world.read(f"{folder}/{layout.PROVENANCE}")
    if data is None:
        away(world, store, known)
        if world.stat(folder) is None:
            return None
        return {"view": folder, "files": dict.fromkeys(world.names(folder) or (), "unmanaged")}
    try:
        record = json.loads(data)
        wanted: Mapping[str, str] = record["files"]
    except (ValueError, KeyError, TypeError):
        record, wanted = {}, {}
    outside: Mapping[str, str] = record.get("foreign") or {}
    files = {name: _hash(world, folder, name, store, outside) for name in _walk(world, folder, "")}
    files |= {name: GONE for name in wanted if name not in files}
    return {**record, "view": folder, "files": dict(sorted(files.items()))}


def away(world: World, store: str, known: bool) -> None:
    """Raises Unknown where the store's volume is not mounted, or where a store that held this is not there."""
    if world.stat(f"{store}/{layout.PROVENANCE}") is not None:
        return
    if world.volume(store) is None:
        raise Unknown(f"the store {store} is on a volume that is not mounted")
    # An empty mount point looks like an empty folder: only a folder that is missing altogether was removed.
    if known and world.stat(store) is not None:
        raise Unknown(f"{store} is not the store it was: its volume is not mounted, or {layout.PROVENANCE} was removed")


def _walk(world: World, folder: str, prefix: str) -> Iterator[str]:
    for name in world.names(f"{folder}/{prefix}".rstrip("/")) or ():
        relative = prefix + name
        if relative == layout.PROVENANCE:
            continue
        stat = world.stat(f"{folder}/{relative}")
        if stat is not None and stat.type == "dir":
            yield from _walk(world, folder, relative + "/")
        else:
            yield relative


def _hash(world: World, folder: str, name: str, store: str, outside: Mapping[str, str]) -> str:
    path = f"{folder}/{name}"
    target = world.link(path)
    if target is None:
        return "not a link"
    full = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if not full.startswith(layout.blobs(store) + "/") and full != outside.get(name):
        return f"a link to {full}"
    return world.sha256(full) or GONE
