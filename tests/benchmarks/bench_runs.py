"""What a run costs beyond the user's code, beside bare MLflow doing the same.

python -m tests.benchmarks.bench_runs [--write]     the quickest of several (noise only adds); into docs/performance.md
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from lab.adapters import mlflow_local, spool
from lab.runs.folder import RunFolder
from lab.runs.run import Handle, RunSpec, launch
from tests.benchmarks.measure import written

POINTS = 20_000


def quickest(of: Callable[[int], subprocess.Popen[bytes] | None], times: int) -> tuple[float, float]:
    """Milliseconds of the quickest call of several: by the clock, and of processor time with that of its children."""
    wall, cpu = [], []
    for n in range(times):
        began, used = time.perf_counter(), _used()
        process = of(n)
        wall.append(1000 * (time.perf_counter() - began))
        if process is not None:
            process.wait()  # it ships what is left; then its processor time is known
        cpu.append(1000 * (_used() - used))
    return min(wall), min(cpu)


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measures, and prints a table, or writes it into the page."""
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

        def whole(handle: Handle) -> subprocess.Popen[bytes] | None:
            handle.wait()
            return handle._process

        def call(n: int) -> subprocess.Popen[bytes] | None:
            return whole(launch(spec(f"call{n}", call="user:nothing")))

        def line(n: int) -> subprocess.Popen[bytes] | None:
            return whole(launch(spec(f"line{n}", argv=("true",))))

        def inline(n: int) -> None:
            launch(spec(f"inline{n}", call="user:nothing", isolation="inline")).wait()

        python = quickest(lambda n: subprocess.run([sys.executable, "-c", "pass"], check=True) and None, 7)
        true = quickest(lambda n: subprocess.run(["true"], check=True) and None, 7)
        rows = [
            ("`true`, bare", true, ""),
            ("`true` as a run", quickest(line, 7), "≤ 300 ms above bare"),
            ("`python -c pass`, bare", python, ""),
            ("an empty call as a run", quickest(call, 7), "≤ 300 ms above bare"),
            ("an empty call, inline", quickest(inline, 20), "≤ 50 ms"),
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
        told = [(name, f"{wall:.0f} ms", f"{cpu:.0f} ms", budget) for name, (wall, cpu), budget in rows]
        told += [
            ("`lab.sdk.log`", f"{len(points) / seconds:,.0f} points/s", "", "≥ 10,000 points/s"),
            ("shipping them to the store", f"{len(points) / shipping:,.0f} points/s", "", ""),
            *_mlflow(root / "bare.db"),
        ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (("what", "takes", "CPU", "budget"), ("---",) * 4, *told))
    machine = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    text = f"Measured with Python {machine} and MLflow {version('mlflow')}:\n\n{table}"
    if "--write" in sys.argv:
        written(Path(__file__).parents[2] / "docs" / "performance.md", "runs", text)
    print(text)


def _mlflow(db: Path) -> list[tuple[str, str, str, str]]:
    """The same with bare MLflow on SQLite."""
    logging.disable(logging.WARNING)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    began = time.perf_counter()
    import mlflow
    from mlflow.entities import Metric

    told = [("`import mlflow`", f"{1000 * (time.perf_counter() - began):.0f} ms", "", "")]
    mlflow_local.prepare(db)
    mlflow.set_tracking_uri(mlflow_local.uri(db))

    def empty(n: int) -> None:
        with mlflow.start_run():
            pass

    empty(0)
    wall, cpu = quickest(empty, 7)
    told.append(("bare MLflow, an empty run", f"{wall:.0f} ms", f"{cpu:.0f} ms", ""))
    with mlflow.start_run() as run:
        began = time.perf_counter()
        for step in range(500):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        told.append(("`mlflow.log_metric`", f"{500 / (time.perf_counter() - began):,.0f} points/s", "", ""))
        client = mlflow.MlflowClient()
        began = time.perf_counter()
        for start in range(0, 5000, 1000):
            client.log_batch(run.info.run_id, [Metric("batch", 1.0, 1, s) for s in range(start, start + 1000)])
        told.append(
            ("`MlflowClient.log_batch` of 1,000", f"{5000 / (time.perf_counter() - began):,.0f} points/s", "", "")
        )
    return told


if __name__ == "__main__":
    main()
