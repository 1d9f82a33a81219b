"""Tracking is MLflow's own, and costs a run nothing: what is spooled arrives once, whatever becomes of the store.

Proves S3-0-1, S3-1.1-6, S3-1.1-7, S3-8.1-8, S0-8.2-2, S2-2.3-3, S3-4.1-1, S2-3.5-2, S3-4.2-1 and S4-2.2.1-4.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.adapters import mlflow_local, mlflow_server, spool
from lab.runs.folder import RunFolder
from lab.runs.run import Handle, RunSpec, launch
from tests.experiments.conftest import Bench


def logged(tmp_path: Path, code: str, db: Path, **fields: object) -> Handle:
    """A finished run of Python code that logs."""
    (tmp_path / "code.py").write_text(code)
    spec = RunSpec(
        tmp_path / "runs" / "r1", "r", call="code:main", cwd=str(tmp_path), path=(str(tmp_path),),
        tracker={"shipper": "lab.adapters.spool:Shipper", "db": str(db), "project": "p", **fields},
    )  # fmt: skip
    handle = launch(spec)
    result = handle.wait(60)
    assert result is not None
    assert result["state"] == "finished", result
    return handle


def shipped(handle: Handle) -> None:
    """Waits for the supervisor's last shipment."""
    end = time.monotonic() + 20
    while spool.pending(handle.folder) and time.monotonic() < end:
        time.sleep(0.02)


LOG = """\
import lab.sdk as lab
def main():
    for step in range(100):
        lab.log({"loss": 1 / (step + 1), "odd": float("nan") if step == 7 else step}, step=step)
    lab.log({"huge": float("inf"), "flag": True, "word": "text", "nested": {"a": 1}})
    lab.tag("idea", "good")
"""


def test_a_plain_client_reads_every_point_in_order(tmp_path: Path) -> None:
    """100 steps give 100 ordered points; NaN, infinity, booleans, nested values and text follow the rule."""
    db = tmp_path / "mlflow" / "mlflow.db"
    mlflow_local.prepare(db)
    handle = logged(tmp_path, LOG, db)
    shipped(handle)
    client = MlflowClient(mlflow_local.uri(db))
    run = client.get_run(mlflow_local.run_id(handle.id))
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [p.step for p in points] == list(range(100))
    assert [p.value for p in points] == [1 / (s + 1) for s in range(100)]
    odd = {p.step: p.value for p in client.get_metric_history(run.info.run_id, "odd")}
    assert math.isnan(odd[7])
    assert run.data.metrics["odd"] == 99
    assert run.data.metrics["huge"] > 1e308
    assert (run.data.metrics["flag"], run.data.metrics["nested.a"]) == (1.0, 1.0)
    assert "word" not in run.data.metrics
    assert run.data.tags["idea"] == "good"
    assert run.info.artifact_uri == (handle.folder / "artifacts").as_uri()


def test_shipping_again_from_the_start_doubles_nothing(tmp_path: Path) -> None:
    """Losing the note of what was shipped costs time, and leaves exactly the same rows."""
    db = tmp_path / "mlflow" / "mlflow.db"
    mlflow_local.prepare(db)
    handle = logged(tmp_path, LOG, db)
    shipped(handle)

    def rows() -> list[object]:
        with sqlite3.connect(db) as con:
            return [
                con.execute(f"SELECT * FROM {t} ORDER BY 1, 2, 3").fetchall() for t in ("metrics", "params", "runs")
            ]

    before = rows()
    (handle.folder / "shipped.json").unlink()
    assert spool.ship(handle.folder, db) >= 101
    assert rows() == before


def test_a_store_that_is_gone_or_damaged_neither_stops_a_run_nor_loses_a_point(tmp_path: Path) -> None:
    """The run finishes; once the store is whole again, everything is there."""
    db = tmp_path / "mlflow" / "mlflow.db"
    db.parent.mkdir()
    db.write_bytes(b"this is no database" * 100)
    handle = logged(tmp_path, LOG, db)
    assert spool.pending(handle.folder)
    with pytest.raises(mlflow_local.Unready):
        spool.ship(handle.folder, db)
    db.unlink()
    spool.ship(handle.folder, db)
    assert not spool.pending(handle.folder)
    assert len(MlflowClient(mlflow_local.uri(db)).get_metric_history(mlflow_local.run_id(handle.id), "loss")) == 100


def test_a_locked_store_is_waited_for_without_the_run_noticing(tmp_path: Path) -> None:
    """Another writer holding the store for the whole run delays only the shipment."""
    db = tmp_path / "mlflow" / "mlflow.db"
    mlflow_local.prepare(db)
    con = sqlite3.connect(db, isolation_level=None)
    code = "import lab.sdk as lab\ndef main():\n    for s in range(50): lab.log({'x': s}, step=s)\n"
    con.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    (tmp_path / "code.py").write_text(code)
    handle = launch(_spec(tmp_path, db))
    assert handle.wait(20) is not None
    assert time.monotonic() - began < 10
    con.execute("ROLLBACK")
    con.close()
    shipped(handle)
    assert len(MlflowClient(mlflow_local.uri(db)).get_metric_history(mlflow_local.run_id(handle.id), "x")) == 50


def _spec(tmp_path: Path, db: Path) -> RunSpec:
    tracker = {"shipper": "lab.adapters.spool:Shipper", "db": str(db), "project": "p"}
    return RunSpec(
        tmp_path / "runs" / "r1", "r", call="code:main", cwd=str(tmp_path), path=(str(tmp_path),), tracker=tracker
    )


def test_four_processes_lose_no_point(tmp_path: Path) -> None:
    """100,000 points from four processes of one run are all there (S3-1.1-7)."""
    db = tmp_path / "mlflow" / "mlflow.db"
    mlflow_local.prepare(db)
    code = """\
import multiprocessing, lab.sdk as lab
def part(n):
    lab.init() if n < 0 else None
    for step in range(25000):
        lab.log({f"p{n}": step}, step=step)
def main():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(part, range(4))
"""
    handle = logged(tmp_path, code, db)
    shipped(handle)
    with sqlite3.connect(db) as con:
        assert con.execute("SELECT count(*), count(DISTINCT key) FROM metrics WHERE key LIKE 'p_'").fetchone() == (
            100000,
            4,
        )


def test_the_kept_schema_is_what_mlflow_makes(tmp_path: Path) -> None:
    """`mlflow_schema.sql` and the installed MLflow make the same tables, columns and keys."""
    mlflow_local.prepare(tmp_path / "ours.db")
    mlflow_local.by_mlflow(tmp_path / "theirs.db")
    ours, theirs = (_tables(tmp_path / f"{n}.db") for n in ("ours", "theirs"))
    assert ours == theirs


def _tables(db: Path) -> dict[str, str]:
    with sqlite3.connect(db) as con:
        rows = con.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
        return {name: _settled(" ".join(sql.split())) for name, sql in rows}


def _settled(sql: str) -> str:
    """The text with its parts in order: MLflow writes constraints and the values of IN from sets."""
    sql = re.sub(r"IN \(([^)]*)\)", lambda m: f"IN ({' '.join(sorted(m[1].split(', ')))})", sql)
    return ", ".join(sorted(part.strip(" )(") for part in sql.split(", ")))


def test_an_unknown_schema_is_left_alone(tmp_path: Path) -> None:
    """A store of another MLflow is not written to: the runs wait in their folders."""
    db = tmp_path / "mlflow" / "mlflow.db"
    mlflow_local.prepare(db)
    with sqlite3.connect(db) as con:
        con.execute("UPDATE alembic_version SET version_num = 'ffff'")
    with pytest.raises(mlflow_local.Unready, match="schema ffff"):
        mlflow_local.prepare(db)


def test_privacy_refuses_a_remote_tracker(bench: Bench) -> None:
    """`privacy: local_only` with a remote tracker is a problem before anything runs."""
    conf = bench.root / "conf/lab.yaml"
    text = conf.read_text().replace("{name: test", "{tracking: {uri: 'http://x', privacy: local_only}, name: test")
    conf.write_text(text)
    bench.write("conf/experiment/e.yaml", "command: 'true'\n")
    code, told = bench("plan")
    assert code == 1
    assert "its runs would leave this machine" in told


def test_the_server_is_started_lean() -> None:
    """Jobs and telemetry off, one worker."""
    words = mlflow_server.command(Path("/x/m.db"), Path("/x/a"), "127.0.0.1", 5001)
    assert words[words.index("--workers") + 1] == "1"
    assert mlflow_server.environment()["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert mlflow_server.environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.slow
def test_plain_mlflow_calls_land_in_the_run_and_its_model_is_registered_once(bench: Bench) -> None:
    """User code that knows only mlflow writes into the right run; equal content is one version; a change a second."""
    bench.write(
        "code.py",
        "import mlflow\ndef main(outputs, word: str = 'a'):\n    with mlflow.start_run():\n"
        "        mlflow.log_metric('plain', 3.0, step=2)\n        mlflow.log_param('theirs', 'x')\n"
        "        mlflow.log_text('hello', 'note.txt')\n    outputs['m'].write_text(word)\n",
    )
    conf = "call: code:main\noutputs: {m: m.txt}\nregister: {name: tiny, aliases: [published]}\nparams: {word: a}\n"
    conf += "metrics: [plain]\n"
    bench.write("conf/experiment/e.yaml", conf)
    assert bench("apply", "--yes")[0] == 0
    client = MlflowClient(mlflow_local.uri(mlflow_local.database(bench.root / "state")))
    (folder,) = (RunFolder(p) for p in (bench.root / "state/runs").iterdir())
    run = client.get_run(mlflow_local.run_id(folder.id))
    assert (run.data.metrics["plain"], run.data.params["theirs"], run.data.params["word"]) == (3.0, "x", "a")
    assert (folder / "artifacts" / "note.txt").read_text() == "hello"
    assert folder.result["metrics"] == {"plain": 3.0}, "what plain calls logged is what the run is judged and listed by"
    assert "plain: 3 → 3  equal" in bench("reproduce", "e")[1]
    bench("run", "e", "-q")
    assert [str(v.version) for v in client.search_model_versions("name = 'tiny'")] == ["1"]
    bench.write("conf/experiment/e.yaml", conf.replace("word: a", "word: b"))
    assert bench("apply", "--yes")[0] == 0
    version = client.get_model_version_by_alias("tiny", "published")
    assert str(version.version) == "2"
    assert version.run_id
    assert version.tags["lab.run"].startswith("e-")
    told = bench("track", "models")[1]
    assert "tiny@2 published\n    run  e-" in told
    assert "tiny@1\n" in told
    assert version.tags["sha256"] in told


@pytest.mark.slow
def test_a_server_that_restarts_mid_way_gets_everything_once(tmp_path: Path) -> None:
    """A remote MLflow server is fed from the local store; stopped and started again, it has every point once."""
    db = tmp_path / "mlflow" / "mlflow.db"
    mlflow_local.prepare(db)
    theirs = tmp_path / "their_state"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    theirs.mkdir()
    url = mlflow_server.serve(theirs, port=port)["url"]
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            assert b"<!doctype html>" in page.read(2000).lower()
        first = logged(tmp_path, LOG, db, uri=url)
        shipped(first)
        mlflow_server.stop(theirs)
        (first.folder / "metrics.jsonl").open("a").write(json.dumps([100, 1_800_000_000_000, {"loss": 0.0}]) + "\n")
        with pytest.raises(mlflow_local.Unready):
            spool.ship(first.folder, db)
        mlflow_server.serve(theirs, port=port)
        spool.ship(first.folder, db)
        spool.ship(first.folder, db)
        client = MlflowClient(url)
        experiment = client.get_experiment_by_name("p")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 101
        assert run.data.tags["lab.run"] == first.id
    finally:
        mlflow_server.stop(theirs)
        shutil.rmtree(theirs, ignore_errors=True)


def test_a_run_never_imports_mlflow(tmp_path: Path) -> None:
    """Neither the supervisor's modules nor the SDK import it: a run costs milliseconds, not seconds."""
    code = (
        "import sys, lab.runs.supervise, lab.adapters.spool, lab.sdk.call, lab.runs.run\n"
        "print([m for m in ('mlflow', 'pydantic', 'hydra', 'sqlalchemy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
