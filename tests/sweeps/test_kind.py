"""A declared sweep goes the whole way: applied, as declared, tampered with, mended, destroyed; only data stay.

Proves S3-5.2-1 (valid YAML plans its number of trials), DC-8 (trials are tracker runs).
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from lab.adapters import mlflow_local
from lab.adapters.optuna_samplers import pruner, sampler
from lab.core.problem import Problems
from lab.core.space import Space
from lab.core.sweeping import PRUNERS, SAMPLERS
from tests.sweeps.conftest import Place

GRID = {
    "experiment": "trial",
    "space": {"x": [0.0, 1.0, 2.0]},
    "objective": {"loss": "min"},
    "sampler": "grid",
    "parallel": 2,
}


def test_a_round_trip(place: Place) -> None:
    """Plan, apply, nothing to do; a changed experiment is another study; destroyed, only data stay."""
    place.write("conf/sweep/find.yaml", GRID)
    assert "a new study of 3 trials" in place.lab("plan")
    place.lab("apply", "--yes")
    assert "No changes" in place.lab("plan")
    summary = place.state / "sweeps" / "find.json"
    first = json.loads(summary.read_text())
    assert (first["complete"], first["best"]["params"]) == (3, {"x": 1.0})
    tracked(place, first["study"], 3)
    summary.unlink()
    assert "sweep.find" in place.lab("plan")
    place.lab("apply", "--yes")
    assert json.loads(summary.read_text())["study"] == first["study"]
    assert len((place.root / "tried").read_text().splitlines()) == 3
    place.sweep("find", "x=0.0,1.0,2.0,3.0")
    assert "No changes" in place.lab("plan")
    place.write("conf/sweep/find.yaml", {**GRID, "space": {"x": [0.0, 1.0, 2.0, 5.0]}})
    assert f"{first['study']} stays" in place.lab("plan")
    (place.root / "conf" / "sweep" / "find.yaml").unlink()
    place.lab("apply", "--yes")
    assert not summary.exists()
    assert (place.state / "runs" / f"{first['study']}-00000" / "result.json").exists()


def tracked(place: Place, study: str, trials: int) -> None:
    """MLflow's store has the study as a run, and its trials as that run's children."""
    db = mlflow_local.database(place.state)
    with sqlite3.connect(db) as con:
        parent = mlflow_local.run_id(study)
        assert con.execute("SELECT status FROM runs WHERE run_uuid = ?", (parent,)).fetchone() == ("FINISHED",)
        children = con.execute(
            "SELECT count(*) FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?", (parent,)
        ).fetchone()
    assert children == (trials,)


def test_other_values_of_the_experiment_do_not_make_the_sweep_stale_and_other_data_do(place: Place) -> None:
    """What is searched does not count; a fixed parameter does."""
    place.write("conf/sweep/find.yaml", GRID)
    place.lab("apply", "--yes")
    text = (place.root / "conf/experiment/trial.yaml").read_text()
    place.write("conf/experiment/trial.yaml", text.replace("x: 0.0", "x: 9.0"))
    assert "sweep.find" not in changed(place)
    place.write("conf/experiment/trial.yaml", text.replace("y: 0.0", "y: 9.0"))
    assert "sweep.find" in changed(place)


def changed(place: Place) -> list[str]:
    """What a plan would change."""
    return [c["address"] for c in json.loads(place.lab("plan", "--json"))["changes"] if c["action"] != "none"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sampler": "tepe"}, "did you mean `tpe`"),
        ({"sampler": "tpe"}, "needs `trials`"),
        ({"pruner": "medain"}, "did you mean `median`"),
        ({"pruner": "percentile"}, "needs `percentile`"),
        ({"pruner": {"name": "threshold", "n_warmup_steps": 2}}, "needs `upper` or `lower`"),
        ({"space": {"x": {"low": 3, "high": 1}}}, "above high"),
        ({"space": {"z": [1, 2]}}, "no parameter z"),
        ({"objective": {"los": "min"}}, "did you mean `loss`"),
        ({"objective": {"loss": "smallest"}}, "min"),
        ({"constraints": ["x +"]}, "no comparison"),
        ({"params": {"x": 1.0}}, "both fixed and searched"),
        ({"objective": {"loss": "min", "b": "max"}, "pruner": "median"}, "several objectives"),
        ({"executor": "slurm"}, "no executor"),
        ({"experiment": "tiral"}, "did you mean `trial`"),
        ({"timeout": "soon"}, "no time"),
    ],
)
def test_a_mistake_is_a_problem_with_file_and_line(place: Place, fields: dict[str, Any], said: str) -> None:
    """Before anything is begun."""
    from lab.app.lab import Lab

    place.write("conf/sweep/bad.yaml", {**GRID, **fields})
    with pytest.raises(Problems) as caught:
        _ = Lab(place.root).declarations
    text = str(caught.value)
    assert said in text
    assert "conf/sweep/bad.yaml:" in text


def test_every_sampler_and_pruner_has_its_name() -> None:
    """Each is Optuna's own class, or says which package it needs."""
    space = Space.of({"x": [1, 2]})
    for name, cls in SAMPLERS.items():
        try:
            made = sampler({"name": name}, space, 1, 0)
        except Problems as e:
            assert "is not installed" in str(e)  # noqa: PT017
            continue
        assert cls in [c.__name__ for c in type(made).__mro__]
    for name, cls in PRUNERS.items():
        options = {"percentile": {"percentile": 25.0}, "patient": {"patience": 3, "wrapped": {"name": "median"}}}
        options["threshold"] = {"upper": 10.0}
        assert type(pruner({"name": name, **options.get(name, {})})).__name__ == cls


def test_words_name_what_the_function_takes_even_where_a_kind_has_that_name(place: Place) -> None:
    """`model` is a kind and a parameter here; `steps` is declared by the function alone; options go as in YAML."""
    place.write("named.py", "def main(model: str, steps: int = 1):\n    return {'loss': len(model) * steps}\n")
    named = {"call": "named:main", "params": {"model": "abc"}, "metrics": ["loss"], "when": "manual"}
    place.write("conf/experiment/named.yaml", {**named, "isolation": "inline"})
    found = place.sweep("named", "model=a,bb", "steps=range(1,4)", "--sampler", "{name: grid}")
    assert (found["complete"], found["best"]["params"]) == (6, {"model": "a", "steps": 1})
    out = place.lab("sweep", "named", "stepz=1,2", "--sampler", "grid", code=1)
    assert "did you mean `steps`" in out
    assert "a bracket is not closed" in place.lab("sweep", "named", "steps=1,2", "--sampler", "{name: grid", code=1)
