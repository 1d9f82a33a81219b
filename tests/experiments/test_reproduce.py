"""A run is made again from exactly what made it, and every metric is compared.

Proves S0-2.1-2, S0-7.2-2 and S0-US-006-4.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.adapters import mlflow_local
from lab.runs import bundle
from lab.runs.reproduce import judge, share
from tests.engines import make
from tests.experiments.conftest import LAB, PROFILE, Bench

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
    assert "No changes" in lab("plan")[1], "a reproduction is compared; the experiment keeps its run"
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


ARRAYS = """\
import numpy as np
def main(n: int = 50):
    a = np.random.rand(n, n)
    return {"det": float(np.linalg.det(a)), "mean": float(a.mean())}
"""
METAL = """\
import mlx.core as mx
def main(n: int = 64):
    a = mx.random.normal((n, n))
    return {"norm": mx.linalg.norm(a @ a).item()}
"""
TORCH = """\
import torch
import lab.sdk as lab
def main(steps: int = 20):
    torch.set_num_threads(1)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    x = torch.randn(64, 8)
    step = torch.optim.SGD(net.parameters(), 0.05)
    for n in range(steps):
        loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
        step.zero_grad(); loss.backward(); step.step()
        lab.log({"loss": loss.item()}, step=n)
"""
LLAMA = """\
import pathlib
from lab.adapters import loading
def main(models: dict, word: str = "The statement"):
    with loading.load(pathlib.Path(models["m"]), context=128, exact=True) as model:
        text = "".join(p.text for p in model.generate(word, tokens=8))
        return {"perplexity": model.score(word + text).perplexity, "bytes": len(text.encode())}
"""
CELLS = [
    {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "n = 1", "outputs": []},
    {
        "cell_type": "code",
        "metadata": {},
        "source": "import random\nimport lab.sdk as lab\nlab.log({'sum': sum(range(n)) * random.random()})",
        "outputs": [],
    },
]


@pytest.mark.slow
def test_twenty_runs_of_every_kind_of_code_come_out_again_from_a_fresh_clone(bench: Bench, tmp_path: Path) -> None:
    """Pure Python, inline, numpy, mlx, torch, llama.cpp, a notebook, a shell line, a clone of other code, a dirty tree.

    They are exported, taken into a fresh clone with a store of its own, and made again there: every metric is equal.
    """
    for name in ("mlx", "mlx_lm", "llama_cpp", "numpy"):
        pytest.importorskip(name)
    for name, text in (("work", CODE), ("arrays", ARRAYS), ("metal", METAL), ("net", TORCH), ("talk", LLAMA)):
        bench.write(f"{name}.py", text)
    other = tmp_path / "other"
    other.mkdir()
    (other / "theirs.py").write_text("import random\ndef main(): return {'theirs': random.random()}\n")
    git(other, "init", "-q")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "x")
    bench.write("book.ipynb", json.dumps({"cells": CELLS, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    make.gguf(make.model(tmp_path / "tiny"), bench.write("weights/tiny.gguf", ""), "F32")
    bench.write(".gitignore", "state/\n__pycache__/\n")
    bench.write("conf/profile/all.yaml", '# @package _global_\nresources: {"*": "*"}\n')
    bench.write("conf/model/tiny.yaml", "path: weights/tiny.gguf\n")
    conf = {
        "pure": "call: work:main\n",
        "inline": "call: work:main\nisolation: inline\n",
        "numpy": "call: arrays:main\n",
        "mlx": "call: metal:main\n",
        "llama": "call: talk:main\nmodels: {m: tiny}\n",
        "notebook": "notebook: book.ipynb\nparams: {n: 10}\n",
        "shell": "command: 'echo total=$(({n} * {seed}))'\nparams: {n: 5}\npatterns: {total: 'total=([0-9]+)'}\n",
        "clone": f"call: theirs:main\nsource: {{git: 'file://{other}'}}\n",
    }
    if importlib.util.find_spec("torch"):
        conf["torch"] = "call: net:main\n"
    for name, text in conf.items():
        bench.write(f"conf/experiment/{name}.yaml", "when: manual\n" + text)
    git(bench.root, "init", "-q")
    git(bench.root, "add", "-A")
    git(bench.root, "commit", "-qm", "x")
    assert bench("apply", "--yes")[0] == 0
    for name in conf:
        for seed in range(3 if name not in ("mlx", "llama") else 2):
            code, told = bench("run", name, f"seed={seed}", "-q")
            assert code == 0, told
    bench.write("work.py", CODE.replace("scale *", "3 * scale *"))
    assert bench("run", "pure", "seed=9", "-q")[0] == 0
    bench.write("work.py", CODE)
    names = [one["id"] for one in json.loads(bench("runs", "--json")[1])]
    assert len(names) >= 20
    archive = tmp_path / "runs.zip"
    assert bench("runs", "export", *names, "--to", str(archive))[0] == 0
    git(tmp_path, "clone", "-q", str(bench.root), "fresh")
    (bench.root / "state").rename(tmp_path / "state.gone")
    fresh = Bench(tmp_path / "fresh", bench._capsys)
    conf_ = fresh.root / "conf/lab.yaml"
    conf_.write_text(conf_.read_text().replace(str(tmp_path / "store"), str(tmp_path / "their_store")))
    assert fresh("apply", "--yes", "--only", "model.tiny")[0] == 0
    assert fresh("runs", "import", str(archive))[0] == 0
    code, told = fresh("reproduce", "--all")
    assert code == 0, told
    assert f"{len(names)} of {len(names)} runs equal (100.0%)" in told


def test_runs_go_to_another_lab_and_are_the_same_there(lab: Bench, tmp_path: Path) -> None:
    """Exported, taken in by an empty lab: same metrics, same files, MLflow has them; twice is once (S0-US-006-4)."""
    assert lab("run", "e", "-q")[0] == 0
    before = json.loads(lab("runs", "--json")[1])[0]
    archive = tmp_path / "b.zip"
    assert lab("runs", "export", "e", "--to", str(archive))[0] == 0
    other = Bench(tmp_path / "other", lab._capsys)
    other.write("conf/lab.yaml", LAB % (tmp_path / "their_store"))
    other.write("conf/profile/all.yaml", PROFILE)
    assert "1 runs came" in other("runs", "import", str(archive))[1]
    assert "0 runs came" in other("runs", "import", str(archive))[1]
    after = json.loads(other("runs", "--json")[1])[0]
    same = ("id", "state", "metrics", "params", "started", "seconds")
    assert {n: after[n] for n in same} == {n: before[n] for n in same}
    assert str(lab.root) not in (Path(after["folder"]) / "spec.json").read_text()
    client = MlflowClient(mlflow_local.uri(mlflow_local.database(other.root / "state")))
    assert client.get_run(mlflow_local.run_id(after["id"])).data.metrics["score"] == before["metrics"]["score"]
    table = tmp_path / "points.csv"
    assert lab("runs", "export", "e", "--to", str(table))[0] == 0
    with open(table) as f:
        points = {r["metric"]: float(r["value"]) for r in csv.DictReader(f)}
    assert points == before["metrics"]


FLIPPED = "what the archive holds " * 40


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.zip", b"PK\x03\x04 half", "damaged, or no zip"),
        ("other.zip", {"notes.txt": "x"}, "is no bundle of runs"),
        ("list.zip", {bundle.MANIFEST: "[]"}, "damaged, or no zip"),
        (
            "flipped.zip",
            {bundle.MANIFEST: '{"format": "lab.runs/1"}', "runs/r/spec.json": FLIPPED},
            "damaged, or no zip",
        ),
        (
            "out.zip",
            {bundle.MANIFEST: '{"format": "lab.runs/1"}', "runs/r/../../../x": "x"},
            "outside its run's folder",
        ),
    ],
)
def test_an_archive_that_is_none_is_refused_whole(
    bench: Bench, tmp_path: Path, name: str, content: bytes | dict[str, str], words: str
) -> None:
    """Damaged, something else, or leading out of its folder: nothing is taken in."""
    archive = tmp_path / name
    if isinstance(content, bytes):
        archive.write_bytes(content)
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            for file, text in content.items():
                made.writestr(file, text)
        data = archive.read_bytes()
        if FLIPPED in content.values():
            at = data.index(b"runs/r/spec.json") + len("runs/r/spec.json")
            archive.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
    code, told = bench("runs", "import", str(archive))
    assert code == 1
    assert words in told
    assert not list((bench.root / "state").glob("import-*"))
    assert not (tmp_path / "x").exists()
