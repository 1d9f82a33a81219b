"""Weights & Biases, offline: a finished run is also written as a W&B run directory, which `wandb sync` uploads.

It is made from the run's folder, after the run and in a process of its own: the run never waits for W&B, and W&B never
sees the network. `state/wandb/offline-run-…` is written again, not doubled, when a run goes on after its end.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.adapters.mlflow_local import Unready
from lab.runs.folder import RunFolder

NOTE = "wandb.json"
"""Beside the run: the directory that was written, and of which end."""


def feed(folder: RunFolder, state: Path) -> None:
    """The run's directory is under `state/wandb/`; raises Unready where W&B is not installed or refuses."""
    if written(folder):
        return
    if not installed():
        raise Unready("W&B is not installed: pip install 'llm-lab[wandb]'")
    (state / "wandb").mkdir(parents=True, exist_ok=True)
    for stale in (state / "wandb").glob(f"offline-run-*-{identity(folder.id)}"):
        shutil.rmtree(stale, ignore_errors=True)
    home = state / "wandb"
    env = {k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"} | {
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true", "WANDB_DATA_DIR": str(home), "WANDB_CACHE_DIR": str(home / "cache"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }  # fmt: skip
    words = [sys.executable, "-m", "lab.adapters.wandb_offline", str(folder.path), str(state)]
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as e:
        raise Unready("W&B did not write the run within five minutes") from e
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Unready(f"W&B could not write the run: {last[:300]}")
    folder.write(NOTE, {"ended": folder.result.get("ended"), "folder": done.stdout.strip().splitlines()[-1]})


def installed() -> bool:
    """Whether W&B can be imported here, without importing it."""
    return importlib.util.find_spec("wandb") is not None


def written(folder: RunFolder) -> bool:
    """Whether the run's directory shows how it ended. Reads."""
    return folder.read(NOTE).get("ended") == folder.result.get("ended")


def identity(run: str) -> str:
    """W&B's id of a run: the same whenever it is asked. Pure."""
    return hashlib.sha256(run.encode()).hexdigest()[:8]


def write(folder: RunFolder, state: Path) -> Path:
    """Writes the directory with W&B itself; returns its place."""
    import wandb

    spec, result, inputs = folder.spec, folder.result, folder.read("inputs.json")
    events = _events(folder)
    config = {**(spec.get("params") or {}), "seed": spec.get("seed")}
    config |= {e["name"]: e["value"] for e in events if e.get("kind") == "param"}
    git = inputs.get("git") or {}
    run = wandb.init(
        mode="offline", dir=str(state), id=identity(folder.id), name=folder.id, config=config,
        project=str(spec.get("tracker", {}).get("project") or spec.get("name")), group=str(spec.get("name")),
        tags=str((spec.get("tags") or {}).get("lab.tags", "")).split(), notes=spec.get("goal") or None,
        settings=wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, silent=True),
    )  # fmt: skip
    place = Path(run.dir).parent
    points: dict[int, dict[str, float]] = {}
    for step, _, values in folder.metrics():
        points.setdefault(step, {}).update(values)
    for step in sorted(points):
        run.log(points[step], step=step)
    run.define_metric("system/*", step_metric="system/second")
    for second, _, values in folder.metrics("system.jsonl"):
        run.log({**values, "system/second": second})
    run.summary.update({**(result.get("metrics") or {}), "lab.state": result.get("state"), "lab.run": folder.id})
    run.summary.update({"lab.commit": git.get("commit", "none"), "lab.digest": spec.get("digest", "")})
    for path in sorted((folder / "artifacts").rglob("*")):
        if path.is_file():
            run.save(str(path), base_path=str(folder / "artifacts"), policy="now")
    run.finish(exit_code=0 if result.get("state") == "finished" else 1)
    return place


def _events(folder: RunFolder) -> list[dict[str, Any]]:
    try:
        lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            continue  # a torn line
    return found


if __name__ == "__main__":
    print(write(RunFolder(sys.argv[1]), Path(sys.argv[2])))
