"""Gathered: what a run's code logged by plain `mlflow` calls comes into its folder, where runs are read from.

It is in the store already; lines that are shipped back change nothing there. A name that is also logged by the SDK is
the SDK's: its points are in the folder as they were said.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from lab.adapters.mlflow_local import run_id
from lab.runs.folder import RunFolder

NOTE = "gathered.json"
"""Names that came from the store, and the last row that was read."""


def gather(db: Path, folder: RunFolder) -> int:
    """The run's `metrics.jsonl` has every point that plain MLflow calls logged; returns how many were new."""
    note, key = folder.read(NOTE), run_id(folder.id)
    before = set(note.get("keys", ()))
    with contextlib.closing(sqlite3.connect(f"file:{db.absolute()}?mode=ro", uri=True, timeout=2)) as con:
        stored = {k for (k,) in con.execute("SELECT key FROM latest_metrics WHERE run_uuid = ?", (key,))}
        names = {n for n in stored if not n.startswith("system/")}
        foreign = before | (names - before - set(folder.last()) if names - before else set())
        if not foreign:
            return 0
        marks = ", ".join("?" * len(foreign))
        rows = con.execute(
            "SELECT rowid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND rowid > ?"
            f" AND key IN ({marks}) ORDER BY rowid",
            (key, int(note.get("row", 0)), *sorted(foreign)),
        ).fetchall()
    if rows:
        lines = [[step, at, {name: float("nan") if nan else value}] for _, name, value, at, step, nan in rows]
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as f:
            f.write("".join(json.dumps(line) + "\n" for line in lines))
        folder.write(NOTE, {"keys": sorted(foreign), "row": rows[-1][0]})
    return len(rows)
