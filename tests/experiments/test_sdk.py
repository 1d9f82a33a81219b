"""The SDK says what a run is, costs microseconds, and imports nothing of ours.

Proves S3-8.1-1, S3-8.1-2, S3-8.1-3, S3-8.1-5, S3-8.1-6, S3-8.1-7, S1-D4.2-1 and S3-1.3-3.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.runs.folder import RunFolder

HOME = Path(__file__).parents[2]


def script(folder: Path, text: str) -> tuple[int, RunFolder]:
    """A plain script outside any `lab` command; its exit code and the run it made."""
    (folder / "s.py").write_text(text)
    env = {k: v for k, v in os.environ.items() if not k.startswith("LAB_")} | {"PYTHONPATH": str(HOME)}
    done = subprocess.run([sys.executable, "s.py"], cwd=folder, env=env, capture_output=True, text=True)
    (found,) = (folder / "lab-runs").iterdir()
    return done.returncode, RunFolder(found)


def test_a_plain_script_makes_a_run_of_its_own(tmp_path: Path) -> None:
    """Project, name, parameters, metrics, the nine tags, files with equal bytes; finished by the program's end."""
    code, run = script(
        tmp_path,
        """\
import lab.sdk as lab, pathlib
run = lab.init(project="p", name="n", config={"lr": 0.1})
lab.config.depth = 3
assert lab.config["lr"] == lab.config.lr == 0.1
for step in range(10):
    lab.log({"loss": 1 / (step + 1)})
for n in range(3):
    pathlib.Path(f"f{n}.bin").write_bytes(bytes([n]) * 100)
assert len(lab.save("f*.bin")) == 3
lab.log_table("table", [{"a": 1, "b": "x"}, {"a": 2}])
lab.log_image("grey", [[0, 128], [255, 64]])
lab.log_html("page", "<p>hi</p>")
""",
    )
    assert code == 0
    assert (run.spec["project"], run.spec["name"]) == ("p", "n")
    assert run.result["state"] == "finished"
    assert [step for step, _, _ in run.metrics()] == list(range(10))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    tags = {e["name"] for e in events if e["kind"] == "tag"}
    assert {"date", "user", "host", "python", "platform", "torch", "accelerator", "experiment", "machine"} <= tags
    assert {"name": "depth", "value": 3} in [
        {k: e[k] for k in ("name", "value")} for e in events if e["kind"] == "param"
    ]
    for n in range(3):
        assert (run / "artifacts" / f"f{n}.bin").read_bytes() == (tmp_path / f"f{n}.bin").read_bytes()
    assert json.loads((run / "artifacts" / "table.json").read_text()) == {
        "columns": ["a", "b"],
        "data": [[1, "x"], [2, None]],
    }
    assert (run / "artifacts" / "grey.png").read_bytes().startswith(b"\x89PNG")
    assert "git" in run.read("inputs.json")


def test_a_crash_is_a_failed_run_with_its_traceback(tmp_path: Path) -> None:
    """What was logged before is there."""
    code, run = script(tmp_path, "import lab.sdk as lab\nlab.init()\nlab.log({'a': 1})\nraise ValueError('no')\n")
    assert code == 1
    assert run.result["state"] == "failed"
    assert "ValueError: no" in run.result["reason"]
    assert run.result["metrics"] == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lab.init()", "has been begun already"),
        ("lab.config.update({'lr': 0.2})", "lr is 0.1 already"),
        ("run.finish(); run.config.update({'new': 1})", "has finished"),
        ("lab.log_html('../x', '')", "outside the run's artifacts"),
    ],
)
def test_mistakes_are_plain_errors(tmp_path: Path, text: str, words: str) -> None:
    """A nested init, a changed parameter, a change after the end, a path out of the run."""
    code, run = script(tmp_path, f"import lab.sdk as lab\nrun = lab.init(config={{'lr': 0.1}})\n{text}\n")
    assert code == 1
    told = run.result["reason"] or (run / "events.jsonl").read_text()
    assert words in told or run.result["state"] == "finished"


def test_a_change_that_is_allowed_is_made(tmp_path: Path) -> None:
    """`allow_change` replaces a parameter."""
    code, run = script(
        tmp_path,
        "import lab.sdk as lab\nlab.init(config={'lr': 0.1})\n"
        "lab.current().config.update({'lr': 1}, allow_change=True)\n"
        "assert lab.config.lr == 1\n",
    )
    assert code == 0
    assert run.result["state"] == "finished"


def test_a_full_disk_costs_points_and_not_the_program(tmp_path: Path) -> None:
    """Where nothing can be written the program goes on."""
    code, _ = script(
        tmp_path,
        "import lab.sdk as lab, os\nrun = lab.init()\nlab.log({'a': 1})\nfd = run._files['metrics.jsonl']\n"
        "os.close(fd); run._files['metrics.jsonl'] = os.open('/dev/full', os.O_WRONLY)\n"
        "lab.log({'a': 2})\nassert run.lost == 1\n",
    )
    assert code == 0


def test_figures_of_matplotlib_are_kept(tmp_path: Path) -> None:
    """A figure becomes a PNG; a page stays a page."""
    pytest.importorskip("matplotlib")
    code, run = script(
        tmp_path,
        "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt, lab.sdk as lab\n"
        "lab.init()\nfig, ax = plt.subplots(); ax.plot([1, 2])\nlab.log_figure('curve', fig)\n",
    )
    assert code == 0
    assert (run / "artifacts" / "curve.png").stat().st_size > 1000


def test_the_sdk_imports_nothing_of_ours() -> None:
    """Only the standard library and itself, at import time."""
    for path in (HOME / "lab" / "sdk").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lab"):
                assert node.module.startswith("lab.sdk"), path
