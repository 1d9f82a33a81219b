"""share: runs leave a lab as an archive or as tables, and come into another."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.adapters import rows, spool
from lab.adapters.mlflow_local import Unready, database
from lab.app.lab import Lab
from lab.app.run import folder
from lab.core.problem import problem
from lab.runs import bundle
from lab.runs.folder import RunFolder, put
from lab.runs.listing import line

_HOME = Path(__file__).resolve().parents[2]


def export(lab: Lab, names: Sequence[str], target: Path) -> str:
    """The runs are in `target`: all of them as `.zip`; their points as `.csv` or `.parquet`; as `.json` in full.

    Returns what was written, in words.
    """
    found = [folder(lab, n) for n in names]
    if target.suffix == ".zip":
        return f"{len(found)} runs, {bundle.pack(found, target, places(lab))} files"
    if target.suffix == ".json":
        told = [{**line(f).to_json(), "spec": f.spec, "inputs": f.read("inputs.json"), "result": f.result,
                 "points": bundle.points([f])} for f in found]  # fmt: skip
        put(target, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        return f"{len(found)} runs"
    listed = bundle.points(found)
    if target.suffix == ".csv":
        with open(target, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, ["run", "metric", "step", "at", "value"])
            writer.writeheader()
            writer.writerows(listed)
    elif target.suffix == ".parquet":
        rows.write(target, listed, "parquet")
    else:
        raise problem(f"{target.name} has no format Lab exports", do="name it .zip, .json, .csv or .parquet")
    return f"{len(listed)} points of {len(found)} runs"


def take(lab: Lab, archive: Path) -> tuple[list[str], list[str]]:
    """The archive's runs are in this lab and its tracker: those that came, and those that were here already."""
    if not archive.is_file():
        raise problem(f"{archive} is not there", do="make it with `lab runs export RUN --to FILE.zip`")
    came, known = bundle.unpack(archive, lab.state, places(lab))
    for name in came:
        run = RunFolder(lab.state / "runs" / name)
        try:
            spool.ship(run, database(lab.state))
        except Unready:
            break  # it waits, as every run does; `lab track` says so
    return came, known


def places(lab: Lab) -> dict[str, str]:
    """Where this lab, its store, its Python and Lab itself are."""
    return {"root": str(lab.root), "store": str(lab.store), "python": sys.executable, "home": str(_HOME)}
