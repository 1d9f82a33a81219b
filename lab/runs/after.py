"""After: what an experiment asks for once a run has ended, such as its record or its place in the registry."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

from lab.runs.folder import RunFolder


def after(folder: RunFolder, log: Callable[[str], None] = lambda text: None) -> None:
    """All of it has been done; what goes wrong there is noted, the result stands."""
    asked, wrong = folder.spec.get("after") or (), []
    for name in asked:
        try:
            named(name)(folder)
        except Exception as e:
            wrong.append(str(e) or type(e).__name__)
            log(f"lab: {name}: {type(e).__name__}: {e}\n")
    if asked:
        with contextlib.suppress(OSError):
            folder.write("after.json", {"wrong": wrong})


def named(name: str) -> Callable[..., Any]:
    """What a spec names as `module:attribute`: so a run is told who serves it, and this room need not know them."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
