"""sql: one reading view over what Lab and MLflow keep: resources, generations, runs, metrics, artifacts, sweeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from lab.app.lab import Lab
from lab.app.state import copied
from lab.core.problem import problem
from lab.ledger.sqlite import File

_LEDGER = {
    "resources": "SELECT address, substr(address, 1, instr(address, '.') - 1) AS kind, digest, content, adopted,"
    " pending, generation, at, facts, declaration FROM ledger.resource",
    "generations": "SELECT number, at, finished, who, host, revision AS 'commit', profile, verb, outcome, summary"
    " FROM ledger.generation",
    "history": "SELECT generation, address, action, reason, before, after, at FROM ledger.history",
    "sweeps": "SELECT address, json_extract(facts, '$.study') AS study, facts FROM ledger.resource"
    " WHERE address LIKE 'sweep.%'",
}
_MLFLOW = {
    "runs": "SELECT r.run_uuid AS run, r.name, e.name AS experiment, r.status, r.start_time / 1000.0 AS started,"
    " r.end_time / 1000.0 AS ended, r.artifact_uri FROM mlflow.runs r JOIN mlflow.experiments e USING (experiment_id)",
    "metrics": "SELECT run_uuid AS run, key, value, step, timestamp / 1000.0 AS at FROM mlflow.metrics",
    "params": "SELECT run_uuid AS run, key, value FROM mlflow.params",
    "tags": "SELECT run_uuid AS run, key, value FROM mlflow.tags",
    "artifacts": "SELECT run_uuid AS run, artifact_uri AS folder FROM mlflow.runs",
}


def sql(lab: Lab, query: str) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    """The columns and rows of a query over the views; nothing can be written. Problems where it is no such query."""
    there = not lab.kept.state()
    with (
        closing(sqlite3.connect("file::memory:", uri=True)) as db,
        # A file is read in place, a server's ledger from a copy.
        copied(lab) if there and not isinstance(lab.kept, File) else nullcontext(lab.state / "ledger.sqlite") as file,
    ):
        _attach(db, "ledger", file, _LEDGER)
        _attach(db, "mlflow", lab.state / "mlflow" / "mlflow.db", _MLFLOW)
        db.execute("PRAGMA query_only = ON")
        try:
            found = db.execute(query)
        except (sqlite3.Error, sqlite3.Warning) as e:
            names = ", ".join(n for (n,) in db.execute("SELECT name FROM temp.sqlite_master WHERE type = 'view'"))
            raise problem("the query cannot be run", why=str(e), do=f"the views are: {names or 'none yet'}") from e
        return [c[0] for c in found.description or ()], found.fetchall()


def _attach(db: sqlite3.Connection, name: str, path: Path, views: dict[str, str]) -> None:
    if not path.exists():
        return
    db.execute(f"ATTACH ? AS {name}", (f"{path.absolute().as_uri()}?mode=ro",))
    for view, query in views.items():
        db.execute(f"CREATE TEMP VIEW {view} AS {query}")
