"""The same sweep on another engine has the same results; a worker that dies loses no trial.

Proves S4-2.2.1-3 and S3-5.3-1 as far as one host shows them.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.conftest import Place

SWEEP = {
    "experiment": "trial",
    "space": {"x": [0.0, 1.0, 2.0, 3.0], "y": [-2.0, 0.0]},
    "objective": "loss",
    "sampler": "grid",
    "parallel": 2,
    "params": {"seconds": 0.5},
}


def check(place: Place, found: Any) -> None:
    """Eight points, each once, with the values the local executor gives."""
    study = place.study(found["study"])
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 8
    assert len({(t.params["x"], t.params["y"]) for t in study.trials}) == 8
    assert all(t.value == (t.params["x"] - 1) ** 2 + (t.params["y"] + 2) ** 2 for t in study.trials)
    assert found["best"]["params"] == {"x": 1.0, "y": -2.0}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_a_worker_that_is_killed_loses_no_trial(place: Place, engine: str) -> None:
    """One of two workers dies in mid-trial; all eight trials are complete."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[engine])
    place.write("conf/sweep/far.yaml", {**SWEEP, "executor": engine})
    running = place.start("sweep", "far", "--json")
    worker = found = 0
    until = time.monotonic() + 120
    while not found and time.monotonic() < until:
        time.sleep(0.05)
        for file in (place.state / "runs").glob("*/process.json"):
            supervisor = json.loads(file.read_text())["supervisor"]["pid"]
            worker = parent(supervisor)
            found = worker if worker not in (0, 1, running.pid) else 0
    assert found, running.communicate(timeout=10)
    os.kill(found, signal.SIGKILL)
    out, _ = running.communicate(timeout=180)
    assert running.returncode == 0, out
    check(place, json.loads((place.state / "sweeps" / "far.json").read_text()))


def parent(pid: int) -> int:
    """The parent of a process; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.slow
def test_a_scheduler_by_its_address(place: Place) -> None:
    """Trials run on the workers of a scheduler that was there before; it is there after."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        place.write(
            "conf/sweep/far.yaml", {**SWEEP, "executor": {"name": "dask", "address": cluster.scheduler_address}}
        )
        check(place, place.sweep("far"))
        with distributed.Client(cluster) as client:
            assert len(client.scheduler_info()["workers"]) == 2


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(place: Place) -> None:
    """In seconds, with its address; no trial begins."""
    pytest.importorskip("distributed")
    executor = {"name": "dask", "address": "tcp://127.0.0.1:9", "timeout": "2s"}
    place.write("conf/sweep/far.yaml", {**SWEEP, "executor": executor})
    assert "no Dask cluster at tcp://127.0.0.1:9" in place.lab("sweep", "far", code=1)
    assert not (place.state / "runs").exists()
