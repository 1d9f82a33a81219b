"""A run is made again from exactly what made it, and every metric is compared.

Proves S0-2.1-2 and S0-7.2-2.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab.runs.reproduce import judge, share
from tests.experiments.conftest import Bench

CODE = """\
import random, time
def main(scale: float = 1.0, datasets: dict = {}):
    extra = sum(len(open(p).read()) for p in datasets.values())
    return {"score": scale * random.random() + extra, "seconds": time.perf_counter()}
"""


@pytest.fixture
def lab(bench: Bench) -> Bench:
    """A lab in git with one experiment on one file of data."""
    bench.write("work.py", CODE)
    bench.write("data.txt", "12345")
    bench.write(".gitignore", "state/\n__pycache__/\n")
    bench.write("conf/dataset/d.yaml", "path: data.txt\n")
    bench.write("conf/experiment/e.yaml", "call: work:main\nparams: {scale: 2.0}\n")
    bench.write("conf/experiment/on_data.yaml", "command: 'cat {datasets.d}/data.txt'\ndatasets: {d: d}\n")
    git(bench.root, "init", "-q")
    git(bench.root, "add", "-A")
    git(bench.root, "commit", "-qm", "x")
    return bench


def git(root: Path, *words: str) -> None:
    """Git in a folder."""
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=root, check=True, capture_output=True
    )


def test_the_recorded_code_is_run_not_today_s(lab: Bench) -> None:
    """Dirty code is saved with its run: changing or committing something else later does not matter."""
    lab.write("work.py", CODE.replace("scale *", "3 * scale *"))
    assert lab("run", "e", "-q")[0] == 0
    git(lab.root, "checkout", "-q", "work.py")
    lab.write("work.py", CODE.replace("random.random()", "99"))
    code, told = lab("reproduce", "e", "--json")
    assert code == 0, told
    found = json.loads(told)
    assert found["equal"] is True
    assert [m["name"] for m in found["metrics"]] == ["score"], "time is no result"
    assert not list((lab.root / "state" / "reproduce").iterdir()), "the checkout is cleared away"
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=lab.root, capture_output=True, text=True, check=True)
    assert len(worktrees.stdout.splitlines()) == 1


def test_data_that_changed_by_a_byte_is_refused_with_both_hashes(lab: Bench) -> None:
    """A model or dataset that is not what the run was given is named, with its hash then and now."""
    assert lab("apply", "--yes")[0] == 0
    assert lab("reproduce", "on_data")[0] == 0
    blob = next(iter((Path(lab.lab.store) / "datasets/d/blobs").rglob("*/*")), None)
    blob = next(p for p in (Path(lab.lab.store) / "datasets/d/blobs").rglob("*") if p.is_file())
    blob.chmod(0o644)
    blob.write_text("12346")
    code, told = lab("reproduce", "on_data")
    assert code == 1
    assert "dataset.d is not what on_data-" in told
    assert blob.name in told


def test_outside_git_it_says_what_it_cannot_know(bench: Bench) -> None:
    """The lab's own folder is used where its code is unchanged, and refused where it changed."""
    bench.write("work.py", CODE)
    bench.write("conf/experiment/e.yaml", "call: work:main\n")
    bench("run", "e", "-q")
    code, told = bench("reproduce", "e")
    assert code == 0, told
    assert "note: no git repository" in told
    bench.write("work.py", CODE.replace("scale *", "1 +"))
    code, told = bench("reproduce", "e")
    assert code == 1
    assert "work.py changed" in told


def test_tolerances_are_relative_and_times_are_left_out() -> None:
    """0 means bit for bit; NaN equals NaN; a metric that is missing on one side differs."""
    before = {"a": 1.0, "b": 1.0, "nan": float("nan"), "gone": 1.0, "tokens_per_second": 5.0, "system/cpu": 1.0}
    after = {"a": 1.0 + 1e-9, "b": 1.0 + 1e-9, "nan": float("nan"), "tokens_per_second": 9.0}
    found = {m.name: m.equal for m in judge(before, after, {"b": 1e-6})}
    assert found == {"a": False, "b": True, "gone": False, "nan": True}
    assert share(judge({"a": 1.0}, {"a": 1.0}, {})) == 1.0


@pytest.mark.slow
def test_twenty_runs_of_seven_kinds_of_code_come_out_again(bench: Bench) -> None:
    """Pure Python, numpy, mlx, a shell command, a notebook, a clone and inline calls: 95 % equal."""
    bench.write(".gitignore", "state/\n__pycache__/\n")
    bench.write("work.py", CODE)
    bench.write(
        "arrays.py",
        "import numpy as np\ndef main(n: int = 50):\n"
        "    a = np.random.rand(n, n)\n    return {'det': float(np.linalg.det(a)), 'mean': float(a.mean())}\n",
    )
    bench.write(
        "metal.py",
        "import mlx.core as mx\ndef main(n: int = 64):\n    a = mx.random.normal((n, n))\n"
        "    return {'norm': mx.linalg.norm(a @ a).item()}\n",
    )
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "n = 1", "outputs": []},
        {
            "cell_type": "code",
            "metadata": {},
            "source": "import lab.sdk as lab\nlab.log({'sum': sum(range(n))})",
            "outputs": [],
        },
    ]
    bench.write("book.ipynb", json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    conf = {
        "pure": "call: work:main\n",
        "inline": "call: work:main\nisolation: inline\n",
        "numpy": "call: arrays:main\n",
        "mlx": "call: metal:main\n",
        "shell": "command: 'echo total={n}'\nparams: {n: 5}\npatterns: {total: 'total=([0-9]+)'}\n",
        "notebook": "notebook: book.ipynb\nparams: {n: 10}\n",
    }
    for name, text in conf.items():
        bench.write(f"conf/experiment/{name}.yaml", text)
    git(bench.root, "init", "-q")
    git(bench.root, "add", "-A")
    git(bench.root, "commit", "-qm", "x")
    for name in conf:
        for seed in range(4 if name != "mlx" else 2):
            code, told = bench("run", name, f"seed={seed}", "-q")
            assert code == 0, told
    code, told = bench("reproduce", "--all")
    assert code == 0, told
    assert "22 of 22 runs equal (100.0%)" in told
