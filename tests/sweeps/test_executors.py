"""The same sweep on another engine has the same results; a worker that dies loses no trial.

Proves S4-2.2.1-3 and S3-5.3-1 as far as one host shows them.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.sweeps.conftest import Place
from tests.sweeps.kills import killed

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
def test_two_hundred_trials_with_four_workers_killed_twenty_times(place: Place, engine: str) -> None:
    """Workers of the engine die, and coordinators, supervisors and programs: 200 trials complete, none twice."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[engine])
    kills = {"worker": 9, "coordinator": 2, "supervisor": 4, "child": 5}
    killed(place, ("--executor", engine), trials=200, workers=4, kills=kills, seed=5)


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
