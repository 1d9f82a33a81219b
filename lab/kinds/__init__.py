"""One file per kind, found by walking this folder or the entry points `lab.kinds`; kinds never import each other."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from lab.core import plugins
from lab.core.kind import Declaration


@cache
def shipped() -> tuple[str, ...]:
    """The names of the kinds that come with Lab. Reads."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_")))


def plugged() -> dict[str, str]:
    """The kinds that other packages add: name → `module:class`. Reads."""
    return plugins.plugged("lab.kinds")


@cache
def load(name: str) -> type[Declaration] | None:
    """The declaration class of a kind, imported when first asked for; None where there is no such kind."""
    if name in shipped():
        module = importlib.import_module(f"lab.kinds.{name}")
        found = [
            c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Declaration) and c.kind == name
        ]
        return found[0]
    if name in plugged():
        module_name, _, attribute = plugged()[name].partition(":")
        plug: type[Declaration] = getattr(importlib.import_module(module_name), attribute)
        return plug
    return None
