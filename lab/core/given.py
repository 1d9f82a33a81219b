"""Given: what a run is given and what it leaves, as its declaration knows them. Pure but for the world it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
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


def last(
    read: Callable[[str], bytes | str | None], state: str, experiment: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An experiment's pointer and the result of the run it points to; empty where there is none. Reads."""
    pointer = parsed(read(f"{state}/experiments/{experiment}.json"))
    run = str(pointer.get("run", ""))
    return pointer, parsed(read(f"{state}/runs/{run}/result.json")) if run else {}


def made(read: Callable[[str], bytes | str | None], state: str, experiment: str, output: str) -> str:
    """The sha256 of an output of the run in force; empty where there is none. Reads."""
    found = last(read, state, experiment)[1].get("outputs") or {}
    return str((found.get(output) or {}).get("sha256", ""))


def patterns(declared: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """What is wrong with regular expressions that shall read a metric: summary, field, what to do. Pure."""
    for name, text in declared.items():
        try:
            if re.compile(text).groups < 1:
                yield f"the pattern of {name} has no group", "patterns", "put the number in parentheses"
        except re.error as e:
            yield f"the pattern of {name} is no regular expression: {e}", "patterns", ""


def names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of nested parameters. Pure."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from names(value, f"{prefix}{key}.")


def parsed(data: bytes | str | None) -> dict[str, Any]:
    """A JSON object; empty where there is none. Pure."""
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
