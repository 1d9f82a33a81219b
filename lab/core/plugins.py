"""Plugins: what other installed packages add to Lab, read from their `entry_points.txt`.

`importlib.metadata` would do, but importing it alone takes longer than this whole search, on every plan.
"""

from __future__ import annotations

import os
import sys
from functools import cache


@cache
def plugged(group: str) -> dict[str, str]:
    """Name → `module:attribute` of the entry points of a group; the first on `sys.path` wins. Reads."""
    found: dict[str, str] = {}
    for place in sys.path:
        try:
            folders = [e.path for e in os.scandir(place or ".") if e.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for folder in sorted(folders):
            try:
                with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as f:
                    text = f.read()
            except OSError:
                continue
            if f"[{group}]" in text:
                for name, value in _section(text, group):
                    found.setdefault(name, value)
    return found


def _section(text: str, group: str) -> list[tuple[str, str]]:
    body = text.partition(f"[{group}]")[2].partition("\n[")[0]
    pairs = (line.partition("=") for line in body.splitlines() if "=" in line and not line.startswith(("#", ";")))
    return [(name.strip(), value.partition("[")[0].strip()) for name, _, value in pairs]
