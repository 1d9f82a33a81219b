"""Stamp: a small file beside what a ledger describes, by which the ledger's loss is noticed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which lab, how far its ledger had come, and where that ledger is."""

    lab: str
    serial: int
    resources: int
    ledger: str = ""


def read_stamp(path: Path) -> Stamp | None:
    """The stamp at `path`; None where there is none. Reads."""
    try:
        found = json.loads(path.read_text())
        return Stamp(str(found["lab"]), int(found["serial"]), int(found["resources"]), str(found.get("ledger", "")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_stamp(path: Path, stamp: Stamp) -> None:
    """The stamp is in place, whole. A place that is not there or cannot be written (a volume away) is left alone."""
    if not path.parent.is_dir() or read_stamp(path) == stamp:
        return
    # Always the same name (one writer at a time holds the lock): what a kill left is written over, not left behind.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(asdict(stamp)))
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
