"""What a run costs beyond the user's code, beside bare MLflow doing the same.

python tests/benchmarks/bench_runs.py            prints a table; medians of several, on whatever machine this is
"""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from lab.adapters import mlflow_local, spool
from lab.runs.folder import RunFolder
from lab.runs.run import RunSpec, launch

POINTS = 20_000


def median(of: Callable[[int], None], times: int) -> float:
    """Median milliseconds of a call."""
    taken = []
    for n in range(times):
        began = time.perf_counter()
        of(n)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def main() -> None:
    """Measures, and prints."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "user.py").write_text(
            "import lab.sdk as lab\ndef nothing(): pass\n"
            f"def log():\n    for s in range({POINTS}): lab.log({{'loss': 1 / (s + 1)}}, step=s)\n"
        )
        db = root / "mlflow" / "mlflow.db"
        mlflow_local.prepare(db)
        tracker = {"shipper": "lab.adapters.spool:Shipper", "db": str(db), "project": "bench"}

        def spec(name: str, **fields: object) -> RunSpec:
            return RunSpec(root / "runs" / name, name, cwd=folder, path=(folder,), tracker=tracker, **fields)  # type: ignore[arg-type]

        def call(n: int) -> None:
            launch(spec(f"call{n}", call="user:nothing")).wait()

        def line(n: int) -> None:
            launch(spec(f"line{n}", argv=("true",))).wait()

        def inline(n: int) -> None:
            launch(spec(f"inline{n}", call="user:nothing", isolation="inline")).wait()

        python = median(lambda n: subprocess.run([sys.executable, "-c", "pass"], check=True) and None, 7)
        true = median(lambda n: subprocess.run(["true"], check=True) and None, 7)
        rows = [
            ("`true`, bare", true, ""),
            ("`true` as a run", median(line, 7), "≤ 300 ms above bare"),
            ("`python -c pass`, bare", python, ""),
            ("an empty call as a run", median(call, 7), "≤ 300 ms above bare"),
            ("an empty call, inline", median(inline, 20), "≤ 50 ms"),
        ]
        handle = launch(spec("log", call="user:log"))
        handle.wait()
        points = list(RunFolder(handle.folder.path).metrics())
        seconds = (points[-1][1] - points[0][1]) / 1000
        time.sleep(1)
        (handle.folder / "shipped.json").unlink(missing_ok=True)
        began = time.perf_counter()
        spool.ship(handle.folder, db)
        shipping = time.perf_counter() - began
        for name, value, budget in rows:
            print(f"{name:<28} {value:8.1f} ms   {budget}")
        print(f"{'lab.sdk.log':<28} {len(points) / seconds:8.0f} points/s   ≥ 10,000")
        print(f"{'shipping to the store':<28} {len(points) / shipping:8.0f} points/s")
        _mlflow(root / "bare.db")


def _mlflow(db: Path) -> None:
    """The same with bare MLflow on SQLite."""
    logging.disable(logging.WARNING)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    began = time.perf_counter()
    import mlflow
    from mlflow.entities import Metric

    print(f"{'import mlflow':<28} {1000 * (time.perf_counter() - began):8.1f} ms")
    mlflow_local.prepare(db)
    mlflow.set_tracking_uri(mlflow_local.uri(db))

    def empty(n: int) -> None:
        with mlflow.start_run():
            pass

    empty(0)
    print(f"{'MLflow, an empty run':<28} {median(empty, 7):8.1f} ms")
    with mlflow.start_run() as run:
        began = time.perf_counter()
        for step in range(500):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        print(f"{'mlflow.log_metric':<28} {500 / (time.perf_counter() - began):8.0f} points/s")
        client = mlflow.MlflowClient()
        began = time.perf_counter()
        for start in range(0, 5000, 1000):
            client.log_batch(run.info.run_id, [Metric("batch", 1.0, 1, s) for s in range(start, start + 1000)])
        print(f"{'MLflow, log_batch of 1000':<28} {5000 / (time.perf_counter() - began):8.0f} points/s")


if __name__ == "__main__":
    main()
