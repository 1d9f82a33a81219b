"""What a sweep tries is exactly what Optuna would try, each point of a grid once, and every fault of a trial is told.

Proves S3-5.1-1 (grid 3x4: 12 distinct trials; random with a seed repeats), DC-8 (the best equals the study's).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lab.app.lab import Lab
from lab.app.sweep import sweep
from lab.app.sweep_results import importance, show
from lab.core.problem import Problems
from lab.core.sweeping import SAMPLERS
from tests.sweeps import functions
from tests.sweeps.conftest import Place

SPACES: dict[str, dict[str, Any]] = {
    "branin": {"x": {"low": -5.0, "high": 10.0}, "y": {"low": 0.0, "high": 15.0}},
    "rosenbrock": {"x": {"low": -2.0, "high": 2.0}, "y": {"low": -2.0, "high": 2.0}},
    "hartmann6": {n: {"low": 0.0, "high": 1.0} for n in "abcdef"},
    "two": {"x": {"low": -3.0, "high": 3.0}, "y": {"low": -3.0, "high": 3.0}},
    "branch": {
        "kind": ["tree", "line"],
        "depth": {"low": 1, "high": 3, "when": {"kind": "tree"}},
        "rate": {"choice": [0.5, 1.5], "when": {"kind": "line"}},
    },
}


@pytest.fixture
def lab(place: Place) -> Place:
    """With an inline experiment for each test function."""
    place.write("functions.py", Path(functions.__file__).read_text())
    for name, space in SPACES.items():
        first = {k: v[0] if isinstance(v, list) else v.get("low", v.get("choice", [0])[0]) for k, v in space.items()}
        place.write(
            f"conf/experiment/{name}.yaml",
            {"call": f"functions:{name}", "params": first, "isolation": "inline", "when": "manual"},
        )
    return place


def run(place: Place, of: str, words: tuple[str, ...] = (), **fields: Any) -> Any:
    """The summary of a sweep over a test function."""
    given = {"objective": "value", "trials": 10, **fields}
    if not words:
        given["space"] = SPACES[of]
        place.write(f"conf/sweep/{of}.yaml", {"experiment": of, **given})
        return sweep(Lab(place.root), f"sweep.{of}")
    return sweep(Lab(place.root), f"experiment.{of}", words, given)


def points(place: Place, found: Any) -> list[tuple[Any, ...]]:
    """Each trial's parameters and value, through Optuna alone."""
    return [(*sorted(t.params.items()), t.value) for t in place.study(found["study"]).trials]


def test_a_grid_of_three_by_four_is_twelve_distinct_trials(lab: Place) -> None:
    """Not one more, and none twice; asked for again, none at all."""
    words = ("x=1,2,3", "y=range(0,2,0.5)")
    found = run(lab, "branin", words, sampler="grid", trials=None)
    tried = points(lab, found)
    assert (found["complete"], len(tried), len(set(tried))) == (12, 12, 12)
    assert run(lab, "branin", words, sampler="grid", trials=None)["complete"] == 12
    assert run(lab, "branin", words, sampler="grid", trials=100)["complete"] == 12


@pytest.mark.parametrize(
    ("name", "sampler", "trials"),
    [
        ("branin", "tpe", 25),
        ("hartmann6", "tpe", 25),
        ("rosenbrock", "tpe", 25),
        ("hartmann6", "random", 15),
        ("rosenbrock", "qmc", 12),
        ("rosenbrock", "cma_es", 20),
        pytest.param("branin", "nsga2", 110, marks=pytest.mark.slow),
        pytest.param("branin", "gp", 15, marks=pytest.mark.slow),
    ],
)
def test_it_tries_what_bare_optuna_tries(lab: Place, name: str, sampler: str, trials: int) -> None:
    """With the same sampler and seed: the same points in the same order, so the same best."""
    import optuna

    if sampler == "gp":
        pytest.importorskip("torch")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = run(lab, name, sampler=sampler, seed=7, trials=trials)
    study = optuna.create_study(sampler=getattr(optuna.samplers, SAMPLERS[sampler])(seed=7))
    study.optimize(
        lambda t: getattr(functions, name)(
            **{n: t.suggest_float(n, d["low"], d["high"]) for n, d in SPACES[name].items()}
        )["value"],
        n_trials=trials,
    )
    assert points(lab, found) == [(*sorted(t.params.items()), t.value) for t in study.trials]
    assert found["best"]["values"]["value"] == study.best_value
    assert lab.study(found["study"]).best_value == study.best_value


@pytest.mark.slow
def test_a_gaussian_process_betters_chance(lab: Place) -> None:
    """On a quadratic, with 40 trials, in at least 8 of 10 seeds. Proves S3-5.1-2 where torch is installed."""
    pytest.importorskip("torch")
    words = ("x=interval(-3,3)", "y=interval(-3,3)")
    bests = {
        sampler: [
            run(lab, "two", words, sampler=sampler, seed=seed, trials=40, name=f"{sampler}{seed}")["best"]["values"][
                "value"
            ]
            for seed in range(10)
        ]
        for sampler in ("gp", "random")
    }
    assert sum(g < r for g, r in zip(bests["gp"], bests["random"], strict=True)) >= 8


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_two_objectives_are_searched_as_bare_optuna_searches_them(lab: Place, sampler: str) -> None:
    """The same points through several generations, so the same front."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    both = ["value", "other"]
    found = run(lab, "two", sampler={"name": sampler, "population_size": 8}, objective=both, seed=7, trials=30)
    own = getattr(optuna.samplers, SAMPLERS[sampler])(seed=7, population_size=8)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=own)

    def objective(trial: Any) -> tuple[float, ...]:
        told = functions.two(**{n: trial.suggest_float(n, d["low"], d["high"]) for n, d in SPACES["two"].items()})
        return tuple(told[m] for m in both)

    study.optimize(objective, n_trials=30)
    assert [t.params for t in lab.study(found["study"]).trials] == [t.params for t in study.trials]
    assert sorted(t["number"] for t in found["front"]) == sorted(t.number for t in study.best_trials)


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(lab: Place) -> None:
    """A study of another name with the same seed repeats it; another seed is another study."""
    one = run(lab, "branin", sampler="random", seed=1)
    two = run(lab, "branin", ("x=interval(-5,10)", "y=interval(0,15)"), sampler="random", seed=1, name="again")
    three = run(lab, "branin", sampler="random", seed=2)
    assert points(lab, one) == points(lab, two) != points(lab, three)
    assert one["study"] != three["study"]


def test_going_on_never_repeats_a_point_of_chance(lab: Place) -> None:
    """Trials asked for one by one, each in a new process's sampler, are all different."""
    for n in range(1, 7):
        found = run(lab, "branin", sampler="random", trials=n)
    assert len(set(points(lab, found))) == 6


def test_every_branch_of_a_conditional_space_is_tried_once(lab: Place) -> None:
    """3 depths of a tree and 2 rates of a line; the parameter of the other branch never comes."""
    found = run(lab, "branch", sampler="brute_force", trials=None)
    study = lab.study(found["study"])
    tried = sorted((t.params["kind"], t.params.get("depth", t.params.get("rate"))) for t in study.trials)
    assert tried == [("line", 0.5), ("line", 1.5), ("tree", 1), ("tree", 2), ("tree", 3)]
    assert all(len(t.params) == 2 for t in study.trials)


def test_constraints_on_parameters_are_kept_before_a_run_and_those_on_metrics_after(lab: Place) -> None:
    """A point outside is never run and does not count; a trial that breaks a metric's limit is never the best."""
    found = run(lab, "two", sampler="random", constraints=["x * x <= 4", "weight >= 0.5"], trials=20)
    study = lab.study(found["study"])
    ran = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert (len(ran), found["complete"]) == (20, 20)
    assert found["infeasible"] == len(study.trials) - 20 > 0
    assert all(abs(t.params["x"]) <= 2 for t in ran)
    assert len(list((lab.state / "runs").iterdir())) == 20
    best = found["best"]
    assert best["params"]["x"] >= 0.5
    assert best["values"]["value"] == min(t.value for t in ran if t.params["x"] >= 0.5)


@pytest.mark.slow
def test_constraints_that_nothing_meets_are_told(lab: Place) -> None:
    """Instead of drawing for ever."""
    with pytest.raises(Problems, match="in a row broke a constraint"):
        run(lab, "two", sampler="random", constraints=["x >= 5"])


def test_several_objectives_make_a_front(lab: Place) -> None:
    """No trial of the front is bettered by any other; one to promote must be chosen."""
    found = run(
        lab,
        "two",
        objective={"value": "min", "other": "min"},
        sampler={"name": "nsga2", "population_size": 8},
        trials=30,
    )
    values = {(f["values"]["value"], f["values"]["other"]) for f in found["front"]}
    theirs = {tuple(t.values) for t in lab.study(found["study"]).best_trials}
    assert values == theirs
    shown = show(Lab(lab.root), "two")
    assert {t.number for t in shown.best} == {f["number"] for f in found["front"]}


def test_importance_ranks_the_true_driver_first(lab: Place) -> None:
    """`x` moves the value by up to 25, `y` by up to 1: both evaluators and the rank correlation say so.

    Proves S3-5.4-1.
    """
    run(lab, "two", ("x=interval(0,5)", "y=interval(0,1)"), sampler="random", trials=40, name="drive")
    for how in ("ped_anova", "fanova"):
        found = importance(Lab(lab.root), "drive", how)
        assert next(iter(found["importance"]["value"])) == "x"
        assert abs(found["correlation"]["value"]["x"]) > 0.9 > abs(found["correlation"]["value"]["y"])


def test_a_finished_point_is_reused_where_that_is_declared(lab: Place) -> None:
    """The second sweep runs only what the first did not."""
    run(lab, "branin", ("x=1,2", "y=1,2"), sampler="grid", trials=None, name="first")
    before = len(list((lab.state / "runs").iterdir()))
    found = run(lab, "branin", ("x=1,2", "y=1,2,3"), sampler="grid", trials=None, name="second", reuse=True)
    after = len(list((lab.state / "runs").iterdir()))
    assert (before, after, found["complete"]) == (4, 6, 6)


def test_stop_rules_end_a_sweep_early(lab: Place) -> None:
    """A value that is good enough; trials without a better one."""
    target = run(lab, "two", sampler="random", stop={"target": 3.0}, trials=200)
    assert target["best"]["values"]["value"] <= 3.0
    assert target["complete"] < 200
    assert "reached" in target["ended"]
    patience = run(lab, "two", sampler="random", stop={"patience": 5}, trials=200)
    assert patience["complete"] < 200
    assert "did not improve" in patience["ended"]


def test_a_study_changed_by_hand_is_not_taken_for_ours(lab: Place) -> None:
    """Another search space under our study's name is a problem; a trial added by hand is not."""
    found = run(lab, "branin", trials=3)
    lab.study(found["study"]).enqueue_trial({"x": 1.0, "y": 2.0})
    again = run(lab, "branin", trials=4)
    assert lab.study(again["study"]).trials[3].params == {"x": 1.0, "y": 2.0}
    lab.study(found["study"]).set_user_attr("lab.space", {"x": {}})
    with pytest.raises(Problems, match="not the one declared"):
        run(lab, "branin", trials=5)


def test_a_torn_journal_is_mended(lab: Place) -> None:
    """Half a line, as a power cut leaves it, is put aside; the study goes on."""
    found = run(lab, "branin", trials=3)
    journal = lab.state / "sweeps" / "studies" / found["study"] / "journal.log"
    with journal.open("ab") as f:
        f.write(b'{"op_code": 4, "wor')
    assert run(lab, "branin", trials=5)["complete"] == 5
    assert (journal.parent / "journal.torn").read_bytes() == b'{"op_code": 4, "wor\n'


@pytest.mark.parametrize(
    ("sampler", "options"), [("tpe", {"n_startup_trials": 3, "multivariate": True}), ("qmc", {"qmc_type": "halton"})]
)
def test_options_of_a_sampler_are_optunas(lab: Place, sampler: str, options: dict[str, Any]) -> None:
    """By name; an unknown one is told with the nearest."""
    assert run(lab, "branin", sampler={"name": sampler, **options}, trials=4)["complete"] == 4
    with pytest.raises(Problems, match="has no option"):
        run(lab, "branin", sampler={"name": sampler, "n_startup_trails": 3}, trials=4)


def test_the_summary_is_plain_and_true(lab: Place) -> None:
    """What the lab points to says what the study says."""
    found = run(lab, "branin", trials=6)
    kept = json.loads((lab.state / "sweeps" / "branin.json").read_text())
    assert kept == json.loads(json.dumps(found, default=str))
    assert all(math.isfinite(v) for _, _, v in kept["progress"])
