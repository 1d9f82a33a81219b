"""MLflow's local store: its own SQLite schema, written to in batches without importing MLflow.

Importing MLflow costs seconds and each of its calls milliseconds; a batch of rows costs microseconds each. The schema
is that of the pinned version, kept beside this file and checked by its revision before the first write; MLflow's own
client reads the result (`tests/experiments/test_mlflow.py`). Writing twice leaves the same rows.

Imports the standard library only: supervisors ship with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.runs.folder import RunFolder, parse, put

LINE = "3.17."
"""The MLflow versions whose tables `mlflow_schema.sql` holds."""
REVISIONS = ("dc11669786a5",)
"""Schema revisions whose tables are known here: those of the pinned MLflow."""
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "killed": "KILLED", "interrupted": "KILLED"}
_BATCH = 5000


class Unready(Exception):
    """The store cannot take anything now; what is spooled waits."""


def database(state: Path) -> Path:
    """The local store's file."""
    return state / "mlflow" / "mlflow.db"


def uri(db: Path) -> str:
    """The local store as MLflow names it."""
    return f"sqlite:///{db.absolute()}"


def run_id(name: str) -> str:
    """MLflow's name of a run of ours: known before the store has ever seen it, so that a run is never there twice."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def prepare(db: Path) -> None:
    """The schema is there, made once however many ask at once; raises Unready where it cannot be."""
    if db.exists() and _revision(db) in REVISIONS:
        return
    db.parent.mkdir(parents=True, exist_ok=True)
    with open(db.parent / "schema.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not db.exists() or db.stat().st_size == 0:
            _make(db)
    found = _revision(db)
    if not found:
        raise Unready(f"{db} cannot be read as a tracking store now; it is left alone")
    if found not in REVISIONS:
        raise Unready(f"the tracking store has schema {found}, which this Lab does not know")


def _make(db: Path) -> None:
    fresh = db.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    if _known_mlflow():
        text = Path(__file__).with_name("mlflow_schema.sql").read_text(encoding="utf-8")
        with contextlib.closing(sqlite3.connect(fresh)) as made:
            made.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {text} COMMIT;")
            now, root = int(time.time() * 1000), (db.parent / "artifacts" / "0").absolute().as_uri()
            made.execute(
                "INSERT INTO experiments VALUES (0, 'Default', ?, 'active', ?, ?, 'default')", (root, now, now)
            )
            made.commit()
    else:
        by_mlflow(fresh)
    os.replace(fresh, db)


def _known_mlflow() -> bool:
    """Whether the installed MLflow, if any, is of the line whose tables are kept beside this file."""
    import importlib.metadata

    try:
        return importlib.metadata.version("mlflow").startswith(LINE)
    except importlib.metadata.PackageNotFoundError:
        return True


def by_mlflow(db: Path) -> None:
    """The schema, made by the installed MLflow itself, in a process of its own; seconds."""
    code = (
        "import logging,sys; logging.disable(30)\n"
        "from mlflow.store.db.utils import create_sqlalchemy_engine, _initialize_tables\n"
        "_initialize_tables(create_sqlalchemy_engine(sys.argv[1]))\n"
    )
    import subprocess

    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", code, uri(db)], capture_output=True, text=True, env=env)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unready(f"MLflow could not make its schema: {last}")


def _revision(db: Path) -> str:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_read(db)) as con:
        row = con.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""
    return ""


def _read(db: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{db.absolute()}?mode=ro", uri=True, timeout=5)


@contextlib.contextmanager
def writing(db: Path, patience: float = 30.0) -> Iterator[sqlite3.Connection]:
    """One transaction in the store; raises Unready where it cannot be had."""
    if not db.exists():
        raise Unready("the tracking store is not there")
    con = None
    try:
        con = sqlite3.connect(db, timeout=patience, isolation_level=None)
        con.execute("PRAGMA synchronous = NORMAL")
        con.execute("BEGIN IMMEDIATE")
        yield con
        con.execute("COMMIT")
    except sqlite3.Error as e:
        raise Unready(f"the tracking store: {e}") from e
    finally:
        if con is not None:
            con.close()


def begin(db: Path, folder: RunFolder, patience: float = 30.0) -> str:
    """The run, its parameters, tags and datasets are in the store; returns MLflow's run id."""
    spec, inputs = folder.spec, folder.read("inputs.json")
    key = run_id(folder.id)
    project = str(spec.get("project") or spec.get("tracker", {}).get("project") or spec.get("name") or "lab")
    with writing(db, patience) as con:
        experiment = _experiment(con, project, db)
        began = int(1000 * float(spec.get("at") or spec.get("started") or time.time()))
        user = str(inputs.get("user", ""))
        con.execute(
            "INSERT OR IGNORE INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,"
            " start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
            " VALUES (?,?,'LOCAL',?,'',?,'RUNNING',?,NULL,?,'active',?,?)",
            (
                key,
                folder.id,
                str(spec.get("call") or " ".join(spec.get("argv", ())))[:500],
                user,
                began,
                str(inputs.get("git", {}).get("commit", ""))[:50],
                (folder / "artifacts").absolute().as_uri(),
                experiment,
            ),
        )
        _params(con, key, flat(spec.get("params", {})) | {"seed": spec.get("seed")})
        _tags(con, key, tags(folder, spec, inputs))
        for name, given in (spec.get("datasets") or {}).items():
            _dataset(con, experiment, key, name, given)
    return key


def ship(db: Path, folder: RunFolder) -> int:
    """Everything spooled since the last time is in the store; returns how many points. Shipping twice ships once."""
    key, sent = run_id(folder.id), folder.read("shipped.json")
    count = 0
    for name in ("metrics.jsonl", "system.jsonl"):
        while True:
            points, end = _spooled(folder / name, int(sent.get(name, 0)))
            if points or end != int(sent.get(name, 0)):
                with writing(db) as con:
                    _metrics(con, key, points)
                sent[name] = end
                put(folder / "shipped.json", json.dumps(sent))
                count += len(points)
            if len(points) < _BATCH:
                break
    events, end = _events(folder / "events.jsonl", int(sent.get("events.jsonl", 0)))
    if events:
        with writing(db) as con:
            _params(con, key, flat({e["name"]: e["value"] for e in events if e.get("kind") == "param"}))
            _tags(con, key, {str(e["name"]): str(e["value"]) for e in events if e.get("kind") == "tag"})
        sent["events.jsonl"] = end
        put(folder / "shipped.json", json.dumps(sent))
    return count


def finish(db: Path, folder: RunFolder) -> None:
    """The run's end is in the store."""
    result = folder.result
    state = str(result.get("state", ""))
    if not state:
        return
    with writing(db) as con:
        con.execute(
            "UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?",
            (_STATUS.get(state, "FAILED"), int(1000 * float(result.get("ended", time.time()))), run_id(folder.id)),
        )
        _tags(con, run_id(folder.id), {"lab.state": state, "lab.reason": str(result.get("reason", ""))})


def tags(folder: RunFolder, spec: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, str]:
    """What a run says of itself, by MLflow's names where it has them. Pure."""
    git = inputs.get("git", {})
    found = {
        "mlflow.runName": folder.id,
        "mlflow.user": inputs.get("user", ""),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": spec.get("call") or " ".join(spec.get("argv", ())),
        "git.commit": git.get("commit", "none"),
        "git": "none" if git.get("commit", "none") == "none" else git["commit"],
        "lab.run": folder.id,
        "lab.experiment": spec.get("name", ""),
        "lab.folder": str(folder.path),
        "lab.digest": spec.get("digest", ""),
        "host": inputs.get("host", ""),
        "python": inputs.get("python", ""),
        **(spec.get("tags") or {}),
    }
    if found["git"] != "none":
        found |= {
            "mlflow.source.git.commit": git["commit"],
            "mlflow.source.git.branch": git.get("branch", ""),
            "mlflow.source.git.repoURL": git.get("remote", ""),
            "git.branch": git.get("branch", ""),
            "git.remote": git.get("remote", ""),
            "git.dirty": git.get("dirty", False),
        }
    for kind in ("env", "models", "datasets"):
        for name, one in (inputs.get(kind) or {}).items():
            found[f"lab.{kind}.{name}"] = one.get("digest", "")
    return {k: str(v) for k, v in found.items() if v not in ("", None)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by dotted names. Pure."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


# --- rows ----------------------------------------------------------------------------------------------------------


def _experiment(con: sqlite3.Connection, name: str, db: Path) -> int:
    row = con.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    if row:
        return int(row[0])
    now = int(time.time() * 1000)
    made = con.execute(
        "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)"
        " VALUES (?,?,'active',?,?)",
        (name, (db.parent / "artifacts" / name).absolute().as_uri(), now, now),
    )
    return int(made.lastrowid or 0)


def _params(con: sqlite3.Connection, key: str, values: Mapping[str, Any]) -> None:
    rows = [(k[:250], (v if isinstance(v, str) else json.dumps(v, default=str))[:6000], key) for k, v in values.items()]
    con.executemany("INSERT OR IGNORE INTO params (key, value, run_uuid) VALUES (?,?,?)", rows)


def _tags(con: sqlite3.Connection, key: str, values: Mapping[str, str]) -> None:
    rows = [(k[:250], v[:8000], key) for k, v in values.items()]
    con.executemany(
        "INSERT INTO tags (key, value, run_uuid) VALUES (?,?,?)"
        " ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value",
        rows,
    )


def _dataset(con: sqlite3.Connection, experiment: int, key: str, name: str, given: Mapping[str, Any]) -> None:
    digest = str(given.get("digest", ""))[:36]
    found = con.execute(
        "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
        (experiment, name, digest),
    ).fetchone()
    uuid = found[0] if found else run_id(f"{experiment} {name} {digest}")
    source = json.dumps({"uri": str(given.get("path", ""))})
    con.execute(
        "INSERT OR IGNORE INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type,"
        " dataset_source) VALUES (?,?,?,?,'local',?)",
        (uuid, experiment, name, digest, source),
    )
    link = run_id(f"{uuid} {key}")
    con.execute("INSERT OR IGNORE INTO inputs VALUES (?,'DATASET',?,'RUN',?,0)", (link, uuid, key))
    con.execute("INSERT OR IGNORE INTO input_tags VALUES (?,'mlflow.data.context','input')", (link,))


def _metrics(con: sqlite3.Connection, key: str, points: Iterable[tuple[int, int, dict[str, float]]]) -> None:
    rows = []
    latest: dict[str, tuple[int, int, float, int]] = {}
    for step, at, values in points:
        for name, value in values.items():
            nan = int(math.isnan(value))
            stored = 0.0 if nan else math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value
            rows.append((name[:250], stored, at, key, step, nan))
            if name not in latest or (step, at, stored) >= latest[name][:3]:
                latest[name] = (step, at, stored, nan)
    con.executemany(
        "INSERT OR IGNORE INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?,?,?,?,?,?)", rows
    )
    con.executemany(
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?,?,?,?,?,?)"
        " ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, timestamp = excluded.timestamp,"
        " step = excluded.step, is_nan = excluded.is_nan"
        " WHERE (excluded.step, excluded.timestamp, excluded.value) >= (step, timestamp, value)",
        [(n[:250], v, at, step, nan, key) for n, (step, at, v, nan) in latest.items()],
    )


def _lines(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines from `start` on, each with where it ends; nothing where there is no file."""
    try:
        with open(path, "rb") as f:
            f.seek(start)
            for line in f:
                if not line.endswith(b"\n"):
                    return
                yield line, (start := start + len(line))
    except FileNotFoundError:
        return


def _spooled(path: Path, start: int) -> tuple[list[tuple[int, int, dict[str, float]]], int]:
    """At most a batch of points from `start`, and where they end; a torn line is passed over."""
    points = []
    end = start
    for line, after in _lines(path, start):
        end = after
        if (point := parse(line)) is not None:
            points.append(point)
        if len(points) >= _BATCH:
            break
    return points, end


def _events(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    found: list[dict[str, Any]] = []
    end = start
    for line, after in _lines(path, start):
        end = after
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found, end
