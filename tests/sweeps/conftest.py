"""A lab in a folder with an experiment whose answer is known, and the command line in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

HOME = Path(__file__).resolve().parents[2]

BOWL = """
import json, os, sys, time
def main(x: float, y: float, opt: str, run, steps: int = 1, seconds: float = 0.0, fail: str = ""):
    if fail == "always":
        raise RuntimeError("the data are missing")
    if fail == "nan":
        return {"loss": float("nan")}
    if fail == "silent":
        return {"accuracy": 1.0}
    for i in range(steps):
        run.log({"loss": (x - 1) ** 2 + (y + 2) ** 2 + (opt == "sgd") + 4 / (i + 1), "size": x * y}, step=i)
        time.sleep(seconds / steps)
"""

TRIAL = """
import sys, time
x, y, seconds = map(float, sys.argv[1:])
time.sleep(seconds)
open("tried", "a").write(f"{x!r} {y!r}\\n")
print("loss=%r" % ((x - 1) ** 2 + (y + 2) ** 2))
"""


class Place:
    """A lab, and how it is used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"

    def write(self, path: str, content: str | Mapping[str, Any]) -> None:
        """A file of the lab."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False))

    def command(self, *words: str) -> list[str]:
        """A `lab` command line."""
        return [sys.executable, "-m", "lab", "-C", str(self.root), *words]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command runs by itself."""
        return subprocess.Popen(
            self.command(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def lab(self, *words: str, code: int = 0) -> str:
        """What the command prints; it ends with `code`."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, env=environment(), timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + (done.stderr if code else "")

    def sweep(self, *words: str) -> dict[str, Any]:
        """The summary of a sweep that is carried out."""
        found: dict[str, Any] = json.loads(self.lab("sweep", *words, "--json"))
        return found

    def study(self, name: str) -> Any:
        """A study with a journal, through Optuna alone."""
        import optuna

        path = self.state / "sweeps" / "studies" / name / "journal.log"
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def environment() -> dict[str, str]:
    """Of a `lab` that is not installed."""
    me = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**os.environ, **me, "PYTHONPATH": str(HOME), "MLFLOW_DISABLE_TELEMETRY": "true", "LAB_DEBUG": "1"}


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema, made once: it takes seconds."""
    from lab.adapters import mlflow_local

    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_local.prepare(folder / "mlflow.db")
    return folder


@pytest.fixture
def place(tmp_path: Path, tracking: Path) -> Iterator[Place]:
    """A lab with the experiments `bowl` (a call) and `trial` (a command)."""
    found = Place(tmp_path / "lab")
    found.write(
        "conf/lab.yaml",
        {"lab": {"name": "t", "id": "0f3a7c1e-0000-4000-8000-000000000001", "store": str(tmp_path / "store")}},
    )
    found.write("bowl.py", BOWL)
    found.write("trial.py", TRIAL)
    bowl = {"call": "bowl:main", "params": {"x": 0.0, "y": 0.0, "opt": "sgd"}, "metrics": ["loss"], "when": "manual"}
    found.write("conf/experiment/bowl.yaml", bowl)
    words = ["{python}", "-S", "-E", "trial.py", "{x}", "{y}", "{seconds}"]
    trial = {"command": words, "params": {"x": 0.0, "y": 0.0, "seconds": 0.0}, "metrics": ["loss"], "when": "manual"}
    found.write("conf/experiment/trial.yaml", {**trial, "patterns": {"loss": r"loss=(\S+)"}, "code": ["trial.py"]})
    shutil.copytree(tracking, found.state / "mlflow")
    yield found
    shutil.rmtree(tmp_path, ignore_errors=True)


Lab = Callable[..., str]
