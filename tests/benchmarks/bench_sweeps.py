"""What a trial costs beyond its own work, side by side with bare Optuna: `python tests/benchmarks/bench_sweeps.py`.

Each line is one more trial of an empty function, one at a time, with the TPE sampler: milliseconds of wall clock and
of processor time (children included), the median of ROUNDS rounds; all lines take turns, so that what else the machine
does falls on each. `bare` is `study.optimize` on the same storage; `beyond` is what ours takes more than it. For
subprocesses that is starting two Pythons (the supervisor and the program).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

HOME = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME))
os.environ["PYTHONPATH"] = str(HOME)


BUDGET = {"inline": 10.0, "subprocess": 300.0}
"""Milliseconds of wall clock that a trial may take beyond bare Optuna's."""


def main() -> None:
    """Prints a table; `--json FILE` keeps it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgresql", default="", metavar="URL")
    parser.add_argument("--executors", default="local", help="local,dask,ray")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lab-bench-"))
    acts: dict[str, tuple[str, int, Callable[[int], None]]] = {}
    few = max(6, args.trials // 4)
    for storage in ["journal", "sqlite", *([args.postgresql] if args.postgresql else [])]:
        name = storage.partition(":")[0]
        acts[f"bare {name}"] = (f"bare {name}", args.trials, partial(bare, folder, storage))
        for isolation, trials in (("inline", args.trials), ("process", few)):
            act = partial(ours, folder, storage, isolation, "local")
            title = "subprocess local" if isolation == "process" else isolation
            acts[f"{title} {name}"] = (f"bare {name}", trials, act)
    for executor in args.executors.split(","):
        if executor != "local":
            act = partial(ours, folder, "journal", "process", executor)
            acts[f"subprocess {executor} journal"] = ("bare journal", few, act)
    try:
        make(folder)
        found = measure({what: (trials, act) for what, (_, trials, act) in acts.items()}, args.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [
        {"what": what, "trials": acts[what][1], **row, "beyond_ms": row["wall_ms"] - found[acts[what][0]]["wall_ms"]}
        for what, row in found.items()
    ]
    for row in rows:
        budget = BUDGET.get(row["what"].partition(" ")[0])
        over = "" if budget is None else f"  beyond {row['beyond_ms']:6.1f} of {budget:g} ms"
        times = f"{row['wall_ms']:7.1f} ms wall  {row['cpu_ms']:7.1f} ms cpu"
        print(f"{row['what']:<28} {times}  a trial; {row['begin_s']:5.2f} s for two{over}")
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


def make(root: Path) -> None:
    """A lab with an empty function."""
    (root / "conf" / "experiment").mkdir(parents=True)
    lab = {"lab": {"name": "b", "id": "0f3a7c1e-0000-4000-8000-000000000002", "store": str(root / "store")}}
    (root / "conf" / "lab.yaml").write_text(json.dumps(lab))
    (root / "empty.py").write_text("def main(x: float, y: float):\n    return {'value': x * x + y * y}\n")
    for isolation in ("inline", "process"):
        block = {"call": "empty:main", "params": {"x": 0.0, "y": 0.0}, "isolation": isolation, "when": "manual"}
        (root / "conf" / "experiment" / f"{isolation}.yaml").write_text(json.dumps(block))
    from lab.adapters import mlflow_local

    mlflow_local.prepare(mlflow_local.database(root / "state"))


def bare(root: Path, storage: str, trials: int) -> None:
    """Optuna's own loop."""
    import optuna

    from lab.adapters.optuna_storage import open_storage, quiet

    quiet()
    where = open_storage(storage, root / "bare" / f"{time.monotonic_ns()}")
    study = optuna.create_study(
        storage=where, sampler=optuna.samplers.TPESampler(seed=1), study_name=f"b{time.monotonic_ns()}"
    )
    study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2 + t.suggest_float("y", -1, 1) ** 2, n_trials=trials)


def ours(root: Path, storage: str, isolation: str, executor: str, trials: int) -> None:
    """The same as a sweep."""
    from lab.app.lab import Lab
    from lab.app.sweep import sweep

    fields: dict[str, Any] = {"objective": "value", "trials": trials, "seed": 1, "executor": executor}
    fields |= {"name": f"s{time.monotonic_ns()}", "storage": "" if storage == "journal" else storage}
    found = sweep(Lab(root), f"experiment.{isolation}", ["x=interval(-1,1)", "y=interval(-1,1)"], fields)
    assert found["complete"] == trials


def measure(acts: dict[str, tuple[int, Callable[[int], None]]], rounds: int) -> dict[str, dict[str, float]]:
    """Wall and processor time of one more trial: of all, less those of a study of two; and of beginning a study."""
    for _, act in acts.values():
        act(2)  # imports and schemas are nobody's trial
    seen: dict[str, list[tuple[float, float, float]]] = {what: [] for what in acts}
    for _ in range(rounds):
        for what, (trials, act) in acts.items():
            wall_two, cpu_two = timed(act, 2)
            wall, cpu = timed(act, trials)
            more = 1000 / (trials - 2)
            seen[what].append((more * (wall - wall_two), more * (cpu - cpu_two), wall_two))
    names = ("wall_ms", "cpu_ms", "begin_s")
    return {w: dict(zip(names, map(median, zip(*r, strict=True)), strict=True)) for w, r in seen.items()}


def timed(act: Callable[[int], None], trials: int) -> tuple[float, float]:
    """Seconds of wall clock and of processors, children included."""
    before, began = _cpu(), time.perf_counter()
    act(trials)
    return time.perf_counter() - began, _cpu() - before


def _cpu() -> float:
    found = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in found)


if __name__ == "__main__":
    main()
