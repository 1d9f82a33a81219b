"""Checkpoints are kept by rule, and a run that goes on from one ends where an uninterrupted one does.

Proves S2-3.4-3 and S0-5.3-4.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.runs.checkpoints import kept, step_of
from lab.runs.run import RunSpec, again, launch

CODE = """\
import json, pathlib, time
import lab.sdk as lab
def main(checkpoints: pathlib.Path, resumed: bool, steps: int = 30, pause: float = 0.0):
    at, x = 0, 10.0
    found = sorted(pathlib.Path(checkpoints).glob("*.json"))
    if resumed and found:
        at, x = json.loads(found[-1].read_text())
    for step in range(at, steps):
        x -= 0.05 * x * (1 + step % 3)
        lab.log({"loss": abs(x - 5)}, step=step)
        (pathlib.Path(checkpoints) / f"step-{step:06d}.json").write_text(json.dumps([step + 1, x]))
        time.sleep(pause)
    return {"final": x}
"""


@pytest.mark.parametrize(
    ("rule", "stay"),
    [
        ({}, set(range(10))),
        ({"last": 2}, {8, 9}),
        ({"last": 1, "every": 4}, {0, 4, 8, 9}),
        ({"last": 1, "best": {"metric": "loss"}}, {3, 9}),
        ({"last": 0, "best": {"metric": "loss", "goal": "max"}}, {0}),
    ],
)
def test_the_rule_says_which_stay(rule: dict[str, object], stay: set[int]) -> None:
    """The last few, every so many, and the best."""
    assert kept(range(10), rule, {s: abs(s - 3) if s else 9.0 for s in range(10)}) == stay


def test_a_step_is_the_last_number_of_a_name() -> None:
    """Whatever stands before it."""
    assert step_of(Path("run2-step-000120.safetensors")) == 120
    assert step_of(Path("best.pt")) is None


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    """Killed and resumed: the same final value, bit for bit; two checkpoints and the best are left."""
    (tmp_path / "train_.py").write_text(CODE)
    keep = {"last": 2, "best": {"metric": "loss"}}

    def spec(name: str, pause: float) -> RunSpec:
        return RunSpec(
            tmp_path / name, "r", call="train_:main", params={"pause": pause}, cwd=str(tmp_path),
            path=(str(tmp_path),), keep=keep,
        )  # fmt: skip

    whole = launch(spec("whole", 0.0)).wait(20)
    handle = launch(spec("killed", 0.05))
    until(lambda: (handle.folder / "checkpoints" / "step-000004.json").exists())
    process = handle.folder.read("process.json")
    os.kill(process["supervisor"]["pid"], signal.SIGKILL)
    os.killpg(process["child"]["pid"], signal.SIGKILL)
    assert handle.wait(10) is not None
    resumed = again(handle.folder).wait(20)
    assert whole is not None
    assert resumed is not None
    assert resumed["metrics"]["final"] == whole["metrics"]["final"]
    best = min(handle.folder.metrics(), key=lambda p: p[2].get("loss", 99))[0]
    left = sorted(p.name for p in (handle.folder / "checkpoints").iterdir())
    assert left == sorted({f"step-{s:06d}.json" for s in (best, 28, 29)})
