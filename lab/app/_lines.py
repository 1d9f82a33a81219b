"""Small logs of JSON lines: what a crash cut short or a disk spoiled is passed over, and takes no later line along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.core.masking import masked
from lab.core.problem import problem


def lines(path: Path, **kinds: type) -> list[dict[str, Any]]:
    """Every whole entry in order that has these fields, of these types; none where there is no log. Reads."""
    out = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            told = json.loads(line)
            out.append({**told, **{k: kind(told[k]) for k, kind in kinds.items()}})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return out


def add(path: Path, **entry: Any) -> None:
    """One entry more, on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as f:
        whole = f.seek(0, 2) == 0 or (f.seek(-1, 2) and f.read(1) == b"\n")
        f.write((b"" if whole else b"\n") + masked(json.dumps(entry)).encode() + b"\n")


def applied(path: Path, *needs: str) -> dict[str, Any]:
    """The settings that an apply wrote, these among them; a Problem where they are damaged. Reads."""
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and all(n in found for n in needs):
            return found
        why = "it holds no settings"
    except (OSError, ValueError, RecursionError) as e:
        why = str(e)
    raise problem(f"{path} cannot be read", why=why, do="run `lab apply`: it is written again")
