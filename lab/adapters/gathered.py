"""Gathered: what code logs by plain `mlflow` calls comes into its run's folder while it runs, where runs are read from.

It is in the store already; lines that are shipped back change nothing there. A name that is also logged by the SDK is
the SDK's: its points are in the folder as they were said.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path

from lab.adapters.mlflow_local import run_id
from lab.runs.folder import RunFolder

NOTE = "gathered.json"
"""Names that came from the store, names that are the SDK's, and the last row that was read."""


def gather(db: Path, folder: RunFolder) -> int:
    """The run's `metrics.jsonl` has every point that plain MLflow calls logged; returns how many were new."""
    note, key = folder.read(NOTE), run_id(folder.id)
    foreign, ours, last = set(note.get("keys", ())), set(note.get("ours", ())), int(note.get("row", 0))
    with contextlib.closing(sqlite3.connect(f"file:{db.absolute()}?mode=ro", uri=True, timeout=2)) as con:
        stored = {k for (k,) in con.execute("SELECT key FROM latest_metrics WHERE run_uuid = ?", (key,))}
        new = {n for n in stored - foreign - ours if not n.startswith("system/")}
        said = _said(folder, new)
        foreign |= new - said
        ours |= said
        rows = []
        if foreign:
            marks = ", ".join("?" * len(foreign))
            rows = con.execute(
                "SELECT rowid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND rowid > ?"  # nosec B608 # question marks only
                f" AND key IN ({marks}) ORDER BY rowid",
                (key, last, *sorted(foreign)),
            ).fetchall()
    if rows:
        lines = [[step, at, {name: float("nan") if nan else value}] for _, name, value, at, step, nan in rows]
        _append(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    if rows or new:
        row = rows[-1][0] if rows else last
        folder.write(NOTE, {"keys": sorted(foreign), "ours": sorted(ours), "row": row}, durable=False)
    return len(rows)


def _said(folder: RunFolder, names: set[str]) -> set[str]:
    """Which of these names the run's own lines hold. Reads."""
    left = set(names)
    for _, _, values in folder.metrics() if left else ():
        left -= values.keys()
        if not left:
            break
    return names - left


def _append(path: Path, data: bytes) -> None:
    """One write, so that no line of the program's own falls into it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        if os.write(fd, data) != len(data):
            raise OSError("the disk is full")
    finally:
        os.close(fd)
