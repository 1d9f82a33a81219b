"""An experiment is known by its input digest: it runs again exactly when something it depends on changes.

Proves S0-2.1-2, S0-5.2-3, S1-R4.3-1, S3-1.1-1, S3-1.1-2, S3-1.1-4, S4-2.2.4-1, S0-4.5-2, S0-US-006-2, S0-US-006-3 and
S2-3.4-4.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.adapters import mlflow_local
from lab.runs.folder import RunFolder
from tests.experiments.conftest import Bench

TRAIN = """\
import json, random
import helper
import lab.sdk as lab
def main(outputs, lr: float = 0.1, steps: int = 5, model: dict = {}):
    x = 10 * random.random()
    for step in range(steps):
        x -= lr * 2 * x
        lab.log({"loss": x * x}, step=step)
    outputs["model"].write_text(json.dumps(helper.rounded(x)))
    return {"final": x}
"""
CONF = """\
call: train:main
params: {lr: 0.1, steps: 5, model: {lora: {r: 8}}}
outputs: {model: model.json}
metrics: [loss, final]
sample: 0.1
"""


@pytest.fixture
def lab(bench: Bench) -> Bench:
    """A lab with one experiment."""
    bench.write("train.py", TRAIN)
    bench.write("helper.py", "def rounded(x): return round(x, 6)\n")
    bench.write("conf/experiment/train.yaml", CONF)
    return bench


def git(bench: Bench, *words: str) -> str:
    """Git in the lab."""
    me = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(
        ["git", *me, *words], cwd=bench.root, capture_output=True, text=True, check=True
    ).stdout.strip()


def runs(bench: Bench) -> list[Path]:
    """The runs' folders, oldest first."""
    return sorted((bench.root / "state" / "runs").iterdir(), key=lambda p: p.stat().st_mtime)


def test_change_nothing_and_it_never_runs_twice(lab: Bench) -> None:
    """Created once; then every change of an input is a rerun with its reason, and nothing else is."""
    assert "+ experiment.train" in lab("plan")[1]
    assert lab("apply", "--yes")[0] == 0
    for _ in range(2):
        assert "No changes" in lab("plan")[1]
        assert lab("apply", "--yes")[0] == 0
    assert len(runs(lab)) == 1
    assert lab("run", "train", "-q")[0] == 0
    assert "adopt" in lab("plan")[1], "another run of the same inputs is recorded, not made once more"
    assert lab("apply", "--yes")[0] == 0
    assert "No changes" in lab("plan")[1]
    assert len(runs(lab)) == 2
    for file, old, new, reason in (
        ("conf/experiment/train.yaml", "lr: 0.1", "lr: 0.2", "params.lr: 0.1 → 0.2"),
        ("train.py", "10 *", "9 *", "code.train.py"),
        ("helper.py", "6)", "7)", "code.helper.py"),
        ("conf/experiment/train.yaml", "sample: 0.1", "seed: 7", "seed: 42 → 7"),
    ):
        path = lab.root / file
        path.write_text(path.read_text().replace(old, new))
        told = lab("plan")[1]
        assert "↻ experiment.train" in told
        assert reason in told
    lab.write("unrelated.py", "x = 1\n")
    (lab.root / "conf/experiment/train.yaml").write_text(CONF + "description: words\ntags: [a]\ntimeout: 5m\n")
    (lab.root / "train.py").write_text(TRAIN)
    (lab.root / "helper.py").write_text("def rounded(x): return round(x, 6)\n")
    assert "No changes" in lab("plan")[1]


def test_apply_tamper_drift_apply_destroy_nothing_left(lab: Bench) -> None:
    """The round trip on the real machine: a changed output is drift, and applying again mends it."""
    lab("apply", "--yes")
    output = lab.root / "state" / "outputs" / "train" / "model"
    before = output.read_text()
    Path(os.path.realpath(output)).write_text("0")
    told = lab("plan")[1]
    assert "experiment.train" in told
    assert "No changes" not in told
    assert lab("apply", "--yes")[0] == 0
    assert output.read_text() == before
    assert "No changes" in lab("plan")[1]
    (lab.root / "conf/experiment/train.yaml").unlink()
    assert lab("apply", "--yes", "--allow-destroy")[0] == 0
    assert not (lab.root / "state" / "outputs" / "train").exists()
    assert not (lab.root / "state" / "experiments" / "train.json").exists()
    assert len(runs(lab)) == 2, "runs outlive the declaration"


def test_a_run_by_hand_with_other_inputs_is_in_nobodys_way(lab: Bench) -> None:
    """Run as declared, it is adopted; once the declaration says otherwise it runs anew, and both runs are kept."""
    assert lab("run", "train")[0] == 0
    assert "adopt" in lab("plan")[1]
    lab.write("conf/experiment/train.yaml", CONF.replace("lr: 0.1", "lr: 0.3"))
    assert "it has run, but not with these inputs" in lab("plan")[1]
    assert lab("apply", "--yes")[0] == 0
    assert "No changes" in lab("plan")[1]
    assert len(runs(lab)) == 2


def test_a_failed_run_is_a_problem_with_its_last_words(lab: Bench) -> None:
    """What was raised, where its log is; nothing is recorded as done."""
    lab.write("train.py", TRAIN.replace("    x = 10", "    raise ValueError('too hot')\n    x = 10"))
    code, told = lab("apply", "--yes")
    assert code == 1
    assert "ValueError: too hot" in told
    assert "lab logs train-" in told
    assert "Traceback" not in told
    assert "experiment.train" in lab("plan")[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("lr: 0.1", ["main takes no parameter lrr", "did you mean `lr`?"]),
        ("steps: 5", ["main takes steps as int, not 'many'"]),
        ("train:main", ["train.py has no function mian", "did you mean `main`?"]),
        ("train:main\n", ["give exactly one of command, call"]),
        ("model.json", ["lies outside its output folder"]),
    ],
)
def test_mistakes_are_seen_before_anything_runs(lab: Bench, change: str, words: list[str]) -> None:
    """A parameter the function does not take, a wrong type, a missing function: told by the plan, with their place."""
    wrong = {
        "lr: 0.1": "lrr: 0.1",
        "steps: 5": "steps: many",
        "train:main": "train:mian",
        "train:main\n": "train:main\ncommand: ls\n",
        "model.json": "../model.json",
    }[change]
    lab.write("conf/experiment/train.yaml", CONF.replace(change, wrong))
    code, told = lab("plan")
    assert code == 1
    assert "conf/experiment/train.yaml:" in told
    for word in words:
        assert word in told
    assert not (lab.root / "state" / "runs").exists()


def test_lab_run_takes_overrides_and_a_plain_client_reads_them(lab: Bench) -> None:
    """`lab run e1 lr=0.2 seed=7`: MLflow's own client returns parameters, every point in order, tags and the end."""
    code, told = lab("run", "train", "lr=0.2", "model.lora.r=16", "--tag", "idea=hot")
    assert code == 0, told
    (folder,) = runs(lab)
    client = MlflowClient(mlflow_local.uri(mlflow_local.database(lab.root / "state")))
    experiment = client.get_experiment_by_name("train")
    assert experiment is not None
    _wait_shipped(folder)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert {k: run.data.params[k] for k in ("lr", "seed", "model.lora.r")} == {
        "lr": "0.2",
        "seed": "42",
        "model.lora.r": "16",
    }
    points = client.get_metric_history(run.info.run_id, "loss")
    spooled = [(s, v["loss"]) for s, _, v in RunFolder(folder).metrics() if "loss" in v]
    assert [(p.step, p.value) for p in points] == spooled
    assert len(points) == 5
    tags = run.data.tags
    assert tags["git"] == "none"
    assert tags["idea"] == "hot"
    assert tags["host"]
    assert tags["mlflow.user"]
    assert RunFolder(folder).spec["params"]["model"] == {"lora": {"r": 16}}
    assert "git" in lab("runs", "show", "train")[1]
    assert "No changes" not in lab("plan")[1], "a run with overrides is not the declared one"


def test_git_is_recorded_with_the_diff_of_a_dirty_tree(lab: Bench) -> None:
    """Commit, branch and remote equal git's own; what is not committed is saved; `require_clean` refuses it by name."""
    lab.write(".gitignore", "state/\n__pycache__/\n")
    git(lab, "init", "-q", "-b", "main")
    git(lab, "remote", "add", "origin", "https://user:token@example.org/lab.git")
    git(lab, "add", "-A")
    git(lab, "commit", "-qm", "x")
    lab.write("helper.py", "def rounded(x): return round(x, 3)\n")
    lab.write("new.txt", "fresh\n")
    assert lab("run", "train", "-q")[0] == 0
    (folder,) = runs(lab)
    found = RunFolder(folder).read("inputs.json")["git"]
    assert (found["commit"], found["branch"]) == (git(lab, "rev-parse", "HEAD"), "main")
    assert found["remote"] == "https://example.org/lab.git"
    patch = (folder / "patch.diff").read_text()
    assert "+def rounded(x): return round(x, 3)" in patch
    assert "+fresh" in patch
    lab.write("conf/experiment/train.yaml", CONF + "require_clean: true\n")
    code, told = lab("run", "train")
    assert code == 1
    assert "helper.py" in told
    git(lab, "add", "-A")
    git(lab, "commit", "-qm", "y")
    assert lab("run", "train", "-q")[0] == 0


def test_two_runs_are_listed_compared_and_drawn(lab: Bench) -> None:
    """Newest first; only what differs; a page with a trace per run and metric; CSV and Markdown; a record to keep."""
    for lr in ("0.1", "0.3"):
        assert lab("run", "train", f"lr={lr}", "-q")[0] == 0
    listed = json.loads(lab("runs", "--json")[1])
    assert [one["params"]["lr"] for one in listed] == [0.3, 0.1]
    assert [one["params"]["lr"] for one in json.loads(lab("runs", "-w", "lr<0.2", "--json")[1])] == [0.1]
    best = json.loads(lab("runs", "--sort", "final", "--json")[1])
    assert best[0]["metrics"]["final"] < best[1]["metrics"]["final"]
    a, b = (one["id"] for one in listed)
    told = lab("compare", a, b)[1]
    assert "params.lr" in told
    assert "params.steps" not in told
    assert "params.steps" in lab("compare", a, b, "--all")[1]
    assert lab("compare", a, b, "--csv")[1].startswith(f"group,name,{a},{b}\n")
    assert lab("compare", a, b, "--markdown")[1].startswith("|")
    page = lab.root / "page.html"
    assert lab("compare", a, b, "--html", str(page))[0] == 0
    figures = re.findall(r"<figure data-metric=\"(\w+)\">(.*?)</figure>", page.read_text(), re.DOTALL)
    assert sorted(name for name, _ in figures) == ["final", "loss"]
    assert all(body.count("data-series") == 2 for _, body in figures)
    assert lab("runs", "record", a)[0] == 0
    record = (lab.root / "docs" / "experiments" / f"{a}.md").read_text()
    for word in ("## Conclusion", "lr", "| loss |", f"{a}-loss.svg", "no git repository"):
        assert word in record


def test_each_makes_an_experiment_per_value(lab: Bench) -> None:
    """`each` is a ladder: every value its own resource; removing one leaves the others alone."""
    lab.write("conf/experiment/train.yaml", CONF.replace("lr: 0.1", "lr: <rate>") + "each: {rate: [0.1, 0.2]}\n")
    told = lab("plan")[1]
    assert "experiment.train.0.1" in told
    assert "experiment.train.0.2" in told
    assert lab("apply", "--yes")[0] == 0
    lab.write("conf/experiment/train.yaml", CONF.replace("lr: 0.1", "lr: <rate>") + "each: {rate: [0.2]}\n")
    told = lab("plan")[1]
    assert "1 to destroy, 1 unchanged" in told


def test_when_says_when(lab: Bench) -> None:
    """`missing` never reruns what ran; `manual` is never run by apply, only by `lab run`."""
    lab.write("conf/experiment/train.yaml", CONF + "when: missing\n")
    assert lab("apply", "--yes")[0] == 0
    lab.write("train.py", TRAIN.replace("10 *", "9 *"))
    assert "No changes" in lab("plan")[1]
    lab.write("conf/experiment/by_hand.yaml", CONF + "when: manual\n")
    assert lab("apply", "--yes")[0] == 0
    assert len(runs(lab)) == 1
    assert lab("run", "by_hand", "-q")[0] == 0
    assert len(runs(lab)) == 2


def test_commands_and_clones_are_experiments_too(lab: Bench, tmp_path: Path) -> None:
    """A shell line with names in braces; code at a git ref, cloned fresh, its commit recorded (S4-2.2.1-1)."""
    lab.write(
        "conf/experiment/line.yaml",
        "command: 'echo {word} {seed} > {outputs.text}'\nparams: {word: \"it's\"}\noutputs: {text: t.txt}\n",
    )
    code = tmp_path / "code"
    code.mkdir()
    (code / "job.py").write_text("def main(): return {'version': 1}\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "1"], ["tag", "v1"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=code, check=True)
    (code / "job.py").write_text("def main(): return {'version': 2}\n")
    lab.write("conf/experiment/job.yaml", f"call: job:main\nsource: {{git: 'file://{code}', ref: v1}}\n")
    (lab.root / "conf/experiment/train.yaml").unlink()
    assert lab("apply", "--yes")[0] == 0, lab("apply", "--yes")[1]
    assert (lab.root / "state/outputs/line/text").read_text() == "it's 42\n"
    (job,) = [RunFolder(p) for p in runs(lab) if p.name.startswith("job-")]
    assert job.result["metrics"] == {"version": 1.0}
    head = subprocess.run(
        ["git", "rev-parse", "v1"], cwd=code, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert job.read("inputs.json")["code_source"]["commit"] == head


def test_the_interpreter_of_its_env_is_used_and_recorded(lab: Bench) -> None:
    """Without an env it is Lab's own Python; the run says which, and what the machine was doing meanwhile."""
    lab.write("train.py", TRAIN.replace("x -= lr", "__import__('time').sleep(0.15); x -= lr"))
    assert lab("run", "train", "-q")[0] == 0
    (folder,) = runs(lab)
    assert RunFolder(folder).read("inputs.json")["interpreter"]["path"] == sys.executable
    samples = list(RunFolder(folder).metrics("system.jsonl"))
    assert len(samples) > 3
    assert max(figures["system/process_memory_megabytes"] for _, _, figures in samples) > 1


def _wait_shipped(folder: Path) -> None:
    import time

    end = time.monotonic() + 20
    while not RunFolder(folder).read("shipped.json").get("finished") and time.monotonic() < end:
        time.sleep(0.02)


def test_a_rerun_says_how_long_its_last_run_took(bench: Bench) -> None:
    """The forecast of a rerun is the last run's own time, by half."""
    bench.write("conf/experiment/slow.yaml", "command: sleep 0.4\nparams: {a: 1}\n")
    assert bench("apply", "--yes")[0] == 0
    bench.write("conf/experiment/slow.yaml", "command: sleep 0.4\nparams: {a: 2}\n")
    (change,) = [c for c in json.loads(bench("plan", "--json")[1])["changes"] if c["address"] == "experiment.slow"]
    assert change["action"] == "rerun"
    took = change["forecast"]["seconds"]
    assert took["value"] >= 0.4
    assert took["low"] < took["value"] < took["high"]
    assert took["source"] == "its last run"
