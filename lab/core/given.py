"""Given: what a run is given and what it leaves, as its declaration knows them. Pure but for the world it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lab.core.address import Address
from lab.core.kind import Context
from lab.core.world import Depth, World


def place(ref: Address, context: Context) -> str:
    """Where what a reference names is read: its kind says it by `view`, or by its `path`. Pure."""
    found, at = context.declaration(ref), context.of(ref)
    return str(found.view(at) if hasattr(found, "view") else context.path(found.path))


def filled(value: Any, chosen: Mapping[str, Any]) -> Any:
    """`value` with `<name>` replaced in every text; a text that is nothing but one becomes the value itself. Pure."""
    if isinstance(value, str):
        for name, choice in chosen.items():
            if value == f"<{name}>":
                return choice
            value = value.replace(f"<{name}>", str(choice))
        return value
    if isinstance(value, Mapping):
        return {k: filled(v, chosen) for k, v in value.items()}
    return [filled(v, chosen) for v in value] if isinstance(value, (list, tuple)) else value


def there(world: World, output: Mapping[str, Any]) -> bool:
    """Whether an output stands as the run left it: its bytes at depth BYTES, its files' sizes otherwise. Reads."""
    path = str(output["path"])
    stat = world.stat(path)
    if stat is None:
        return False
    if stat.type == "file":
        return bool(world.sha256(path) == output["sha256"])
    sizes = output.get("sizes") or {}
    for name, size in sizes.items():
        one = world.stat(f"{path}/{name}")
        if one is None or one.size != size:
            return False
        if world.depth >= Depth.BYTES and world.sha256(f"{path}/{name}") != (output.get("hashes") or {}).get(name):
            return False
    return True


def names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of nested parameters. Pure."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from names(value, f"{prefix}{key}.")


def parsed(data: bytes | None) -> dict[str, Any]:
    """A JSON object; empty where there is none. Pure."""
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
