"""What a trial costs beyond its own work, side by side with bare Optuna: `python tests/benchmarks/bench_sweeps.py`.

Each line is the mean over TRIALS trials of an empty function, one at a time, with the TPE sampler: milliseconds of
wall clock and of processor time (children included). `bare` is `study.optimize` on the same storage. For subprocesses
what is left beyond the storage's own cost is starting two Pythons (the supervisor and the program).
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
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME))
os.environ["PYTHONPATH"] = str(HOME)


def main() -> None:
    """Prints a table; `--json FILE` keeps it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--postgresql", default="", metavar="URL")
    parser.add_argument("--executors", default="local", help="local,dask,ray")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lab-bench-"))
    rows = []
    try:
        make(folder)
        storages = ["journal", "sqlite", *([args.postgresql] if args.postgresql else [])]
        for storage in storages:
            name = storage.partition(":")[0]
            rows.append(measure(f"bare {name}", args.trials, lambda n, s=storage: bare(folder, s, n)))
            rows.append(
                measure(f"inline {name}", args.trials, lambda n, s=storage: ours(folder, s, n, "inline", "local"))
            )
        for executor in args.executors.split(","):
            few = max(5, args.trials // 5)
            rows.append(
                measure(f"subprocess {executor}", few, lambda n, e=executor: ours(folder, "journal", n, "process", e))
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for row in rows:
        times = f"{row['wall_ms']:8.1f} ms wall  {row['cpu_ms']:8.1f} ms cpu"
        print(f"{row['what']:<22} {times}  a trial; {row['begin_s']:5.1f} s for two")
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


def ours(root: Path, storage: str, trials: int, isolation: str, executor: str) -> None:
    """The same as a sweep."""
    from lab.app.lab import Lab
    from lab.app.sweep import sweep

    fields: dict[str, Any] = {"objective": "value", "trials": trials, "seed": 1, "executor": executor}
    fields |= {"name": f"s{time.monotonic_ns()}", "storage": "" if storage == "journal" else storage}
    found = sweep(Lab(root), f"experiment.{isolation}", ["x=interval(-1,1)", "y=interval(-1,1)"], fields)
    assert found["complete"] == trials


def measure(what: str, trials: int, act: Callable[[int], None]) -> dict[str, Any]:
    """Wall and processor time of one more trial: of all, less those of a study of two; and of beginning a study."""
    wall_two, cpu_two = timed(act, 2)
    wall, cpu = timed(act, trials)
    per = {"wall_ms": 1000 * (wall - wall_two) / (trials - 2), "cpu_ms": 1000 * (cpu - cpu_two) / (trials - 2)}
    return {"what": what, "trials": trials, **per, "begin_s": wall_two}


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
