"""Shipped: the playbooks and recipes that come with Lab, in its repository or inside its wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_ROOMS = ("playbooks", "recipes")


def find(relative: str) -> Path | None:
    """`recipes/…` or `playbooks/…` as it came with Lab; None where there is no such file or folder. Reads."""
    parts = Path(relative).parts
    if not parts or parts[0] not in _ROOMS or ".." in parts:
        return None
    for base in (_PACKAGE / "_shipped", _PACKAGE.parent):
        path = base / relative
        if path.exists():
            return path
    return None


def names(relative: str) -> list[str]:
    """The sorted names in a shipped folder, hidden ones left out. Reads."""
    folder = find(relative)
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder else []
