"""Stamp: a small file beside what a ledger describes, by which the ledger's loss is noticed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which lab, and how far its ledger had come."""

    lab: str
    serial: int
    resources: int


def read_stamp(path: Path) -> Stamp | None:
    """The stamp at `path`; None where there is none. Reads."""
    try:
        found = json.loads(path.read_text())
        return Stamp(str(found["lab"]), int(found["serial"]), int(found["resources"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """The stamp is in place, whole. A place that cannot be written (a volume that is away) is left alone."""
    if read_stamp(path) == stamp:
        return
    # Always the same name (one writer at a time holds the lock): what a kill left is written over, not left behind.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(stamp)))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
