"""What goes wrong in a sweep is told, counted and survived.

Proves S3-5.2-1 (at most `parallel` at once), S3-5.1-3 (pruned trials spare steps), S0-8.3-5 (never more memory at once
than there is).
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

SPACE = {"x": {"low": -5.0, "high": 5.0}, "y": {"low": -5.0, "high": 5.0}}


def declare(place: Place, name: str, experiment: str = "bowl", **fields: Any) -> None:
    """A sweep in the lab's YAML."""
    block = {"experiment": experiment, "space": SPACE, "objective": "loss", "sampler": "random", "trials": 4}
    place.write(f"conf/sweep/{name}.yaml", {**block, **fields})


def kept(place: Place, name: str) -> Any:
    """What the lab points to."""
    return json.loads((place.state / "sweeps" / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("always", "the data are missing"),
        pytest.param("nan", "`loss` is nan", marks=pytest.mark.slow),
        pytest.param("silent", "never logged", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_whose_trials_all_fail_ends_early_with_the_reason(place: Place, fail: str, said: str) -> None:
    """After three, not after a thousand; each trial says why it failed."""
    declare(place, "bad", trials=1000, params={"fail": fail}, parallel=2)
    out = place.lab("sweep", "bad", code=1)
    assert said in out
    assert "first 3 trials all failed" in out or "first 4 trials all failed" in out
    assert kept(place, "bad")["failed"] in (3, 4)
    assert said in place.lab("sweep", "csv", "bad")


def test_some_failed_trials_count_and_the_rest_goes_on(place: Place) -> None:
    """A failed trial used its number; the best is among those that did not fail."""
    declare(place, "some", sampler="grid", trials=None, space={"fail": ["", "nan"], "x": [0.0, 1.0]})
    found = place.sweep("some")
    assert (found["complete"], found["failed"]) == (2, 2)
    assert found["best"]["params"] == {"fail": "", "x": 1.0}
    assert place.lab("sweep", "show", "some").count("failed") >= 2


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 2},
        pytest.param(
            {"name": "hyperband", "min_resource": 2, "max_resource": 20, "reduction_factor": 3}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda p: p["name"],
)
def test_hopeless_trials_are_pruned(place: Place, pruner: dict[str, Any]) -> None:
    """Some trials end before their last step, and the best does not."""
    declare(
        place, "cut", trials=8, params={"steps": 20, "seconds": 1.0}, parallel=2, seed=3,
        pruner=pruner,
    )  # fmt: skip
    found = place.sweep("cut")
    assert found["pruned"] > 0
    assert found["complete"] + found["pruned"] == 8
    study = place.study(found["study"])
    steps = sum(len(t.intermediate_values) for t in study.trials)
    assert steps < 8 * 20
    assert len(study.best_trial.intermediate_values) == 20
    assert "pruned" in place.lab("sweep", "show", "cut")
    made = place.lab("sweep", "plot", "cut").split()
    assert "while it ran" in Path(made[0]).read_text()
    assert all(Path(p).read_bytes()[:4] == b"\x89PNG" for p in made[1:])


def test_never_more_trials_at_once_than_asked_for(place: Place) -> None:
    """Six trials, two at once: their times overlap in pairs and never in threes."""
    declare(place, "pairs", "trial", trials=6, parallel=2, params={"seconds": 0.4})
    place.sweep("pairs")
    assert most_at_once(place) == 2


def test_never_more_memory_at_once_than_there_is(place: Place) -> None:
    """Four at once are allowed, and the host holds two: two run at once, and the queue says what it waits for."""
    place.write("conf/host/small.yaml", {"memory": "1 GB"} | {"name": "small"})
    place.write("conf/lab.yaml", (place.root / "conf/lab.yaml").read_text() + "defaults: [_self_, {host: small}]\n")
    text = (place.root / "conf/experiment/trial.yaml").read_text()
    place.write("conf/experiment/trial.yaml", text + "resources: {memory: 400 MB}\n")
    declare(place, "full", "trial", trials=5, parallel=4, params={"seconds": 2.0})
    running = place.start("sweep", "full")
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out
    assert "waits: " in out
    assert most_at_once(place) == 2


def most_at_once(place: Place) -> int:
    """How many runs of the lab ever ran at the same time, by their own records."""
    edges = []
    for run in (place.state / "runs").iterdir():
        result = json.loads((run / "result.json").read_text())
        edges += [(result["started"], 1), (result["ended"], -1)]
    now = most = 0
    for _, step in sorted(edges):
        now += step
        most = max(most, now)
    return most


@pytest.mark.slow
def test_a_second_coordinator_is_told_who_is_first(place: Place) -> None:
    """It begins nothing; the first one ends as if nothing had happened."""
    declare(place, "one", "trial", trials=3, params={"seconds": 5.0})
    first = place.start("sweep", "one")
    wait_for(lambda: any((place.state / "runs").glob("*/process.json")))
    out = place.lab("sweep", "one", code=1)
    assert "being coordinated already" in out
    assert f"process {first.pid}" in out
    assert f"carried on by process {first.pid}" in place.lab("sweep", "show", "one")
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert kept(place, "one")["complete"] == 3


@pytest.mark.slow
def test_code_that_changes_in_mid_sweep_ends_it_and_is_another_study(place: Place) -> None:
    """No trial runs with the new code in the old study; put back, the old study goes on."""
    declare(place, "pin", "trial", trials=6, params={"seconds": 0.3})
    running = place.start("sweep", "pin")
    wait_for(lambda: list((place.state / "runs").glob("*/result.json")))
    before = (place.root / "trial.py").read_text()
    place.write("trial.py", before + "# another\n")
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "trial.py" in out
    first = kept(place, "pin")["study"]
    plan = json.loads(place.lab("plan", "--json"))
    change = next(c for c in plan["changes"] if c["address"] == "sweep.pin")
    assert change["action"] != "none"
    place.write("trial.py", before)
    found = place.sweep("pin")
    assert (found["study"], found["complete"]) == (first, 6)


def test_ctrl_c_leaves_living_trials_and_the_next_start_adopts_them(place: Place) -> None:
    """The trial in hand is not lost: the next coordinator takes its result."""
    declare(place, "go", "trial", trials=2, params={"seconds": 2.0})
    running = place.start("sweep", "go")
    wait_for(lambda: list((place.state / "runs").glob("*/process.json")))
    os.kill(running.pid, signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130, out
    found = place.sweep("go")
    assert found["complete"] == 2
    assert len((place.root / "tried").read_text().splitlines()) == 2


@pytest.mark.slow
def test_stop_ends_coordinator_and_trials_and_the_sweep_can_go_on(place: Place) -> None:
    """`lab sweep stop`; the trial that was ended runs again under its number."""
    declare(place, "halt", "trial", trials=2, params={"seconds": 1.5})
    running = place.start("sweep", "halt")
    wait_for(lambda: list((place.state / "runs").glob("*/process.json")))
    time.sleep(0.3)
    assert "1 living trials were ended" in place.lab("sweep", "stop", "halt")
    running.communicate(timeout=30)
    assert place.sweep("halt")["complete"] == 2
    assert sorted(p.name[-5:] for p in (place.state / "runs").iterdir()) == ["00000", "00001"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bowl", "z=1,2"), "no parameter `z`"),
        (("bowl", "x=1,2", "--sampler", "tepe", "--trials", "2"), "did you mean `tpe`"),
        (("bowl", "x=1,2"), "needs `trials`"),
        (("bowl", "x=interval(0,1)", "--sampler", "grid"), "continuous"),
        (("bowl", "x=1,2", "--trials", "2", "--minimize", "losss"), "did you mean `loss`"),
        (("bowl",), "nothing to search"),
        (("bwol", "x=1,2"), "did you mean `bowl`"),
        (("bowl", "x=a,b", "--trials", "2"), "takes x as float"),
        (("show", "nothing"), "was ever begun"),
        (("show",), "which sweep"),
    ],
)
def test_a_mistake_is_told_and_nothing_begins(place: Place, words: tuple[str, ...], said: str) -> None:
    """With the nearest right word; no study is made."""
    assert said in place.lab("sweep", *words, code=1)
    assert not (place.state / "sweeps").exists()


def wait_for(true: Any, seconds: float = 60) -> None:
    """Until it is true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
