"""Training recipes are declared, run and built upon: fine-tuning with MLX, a PyTorch loop, and every other template.

Proves S0-2.3-3, S0-5.4-5 and S2-3.4-1.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.adapters import loading
from lab.app.new import recipes
from lab.runs.folder import RunFolder
from lab.runs.run import RunSpec, again, launch
from tests.engines import make
from tests.experiments.conftest import Bench

HOME = Path(__file__).parents[2]
LINES = [f"The {a} statement is used to {b} the {c}." for a in ("for", "if", "with") for b in ("run", "end", "bind")
         for c in ("suite", "name", "block", "loop")]  # fmt: skip


def texts(bench: Bench) -> None:
    """A dataset of lines to train on and lines held out."""
    for part, lines in (("train", LINES[4:]), ("test", LINES[:4])):
        bench.write(f"text/{part}.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in lines))
    bench.write("conf/dataset/words.yaml", "path: text\n")
    bench.write("conf/profile/all.yaml", '# @package _global_\nresources: {"*": "*"}\n')


@pytest.fixture
def lab(bench: Bench, tmp_path: Path) -> Bench:
    """A model of random weights, and text."""
    pytest.importorskip("mlx_lm")
    texts(bench)
    make.model(tmp_path / "tiny")
    bench.write("conf/model/base.yaml", f"path: {tmp_path / 'tiny'}\n")
    return bench


def said(folder: Path) -> str:
    """What a model writes."""
    with loading.load(folder, context=128) as model:
        return "".join(p.text for p in model.generate("The for statement", tokens=12))


@pytest.mark.slow
def test_an_adapter_is_trained_fused_and_quantized_in_one_apply(lab: Bench) -> None:
    """Declared from recipes: the adapter lowers the loss, the fused model writes other text than the base, and a GGUF
    level of it is a quantization like any other. Then nothing is to do."""
    pytest.importorskip("llama_cpp")
    tune = ["model=base", "dataset=words", "iterations=40", "rate=0.005", "batch=4", "length=64", "every=10"]
    assert lab("new", "experiment", "tune", "--from", "lora", *tune)[0] == 0
    assert lab("new", "experiment", "fuse", "--from", "fuse", "model=base", "experiment=tune")[0] == 0
    lab.write("conf/model/tuned.yaml", "from: fuse\noutput: model\n")
    lab.write("conf/quantization/tuned_q8.yaml", "of: tuned\nformat: gguf\ntype: Q8_0\n")
    code, told = lab("apply", "--yes")
    assert code == 0, told + lab("logs", "tune")[1]
    assert "No changes" in lab("plan")[1]
    (run,) = (RunFolder(p) for p in (lab.root / "state/runs").iterdir() if p.name.startswith("tune-"))
    losses = [v["train_loss"] for _, _, v in run.metrics() if "train_loss" in v]
    assert len(losses) == 5, "every ten iterations, and what the run returned"
    assert losses[-1] < losses[0]
    assert run.result["metrics"]["validation_loss"] > 0
    assert len(list((run / "checkpoints").iterdir())) == 2, "the last two, of which one is the best"
    adapter = lab.root / "state/outputs/tune/adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["lora_parameters"]["rank"] == 8
    base, tuned = (Path(lab.lab.store) / "models" / n for n in ("base/original", "tuned/original"))
    assert said(base) != said(tuned)
    assert lab("reproduce", "tune")[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_a_torch_loop_resumes_to_the_bit(tmp_path: Path, until: Callable[..., None], bench: Bench) -> None:
    """Killed after a checkpoint and resumed, it ends with the weights of an uninterrupted run."""
    texts(bench)

    def spec(name: str) -> RunSpec:
        return RunSpec(
            tmp_path / name, "r", call="recipes.experiment.torch_loop:main", cwd=str(HOME), path=(str(HOME),), cores=1,
            params={"steps": 60, "every": 10, "length": 16, "hidden": 16, "batch": 4, "device": "cpu"},
            datasets={"text": {"path": str(bench.root / "text")}}, outputs={"model": "model"},
        )  # fmt: skip

    handle = launch(spec("killed"))
    until(lambda: any((handle.folder / "checkpoints").glob("step-*.pt")), 120.0)
    process = handle.folder.read("process.json")
    os.kill(process["supervisor"]["pid"], signal.SIGKILL)
    os.killpg(process["child"]["pid"], signal.SIGKILL)
    first = handle.wait(20)
    assert first is not None
    resumed = again(handle.folder).wait(300)
    whole = launch(spec("whole")).wait(300)
    assert whole is not None
    assert resumed is not None
    assert (first["state"], resumed["state"], whole["state"]) == ("interrupted", "finished", "finished")
    weights = [(tmp_path / n / "outputs/model/weights.pt").read_bytes() for n in ("killed", "whole")]
    assert weights[0] == weights[1]
    assert resumed["metrics"] == whole["metrics"]


OPEN = {"model": "base", "dataset": "words", "experiment": "first", "ladder": "steps", "env": "py", "task": "colors",
        "notebook": "book.ipynb", "command": "echo score=1", "script": "job.py"}  # fmt: skip


@pytest.fixture
def declared(bench: Bench, tmp_path: Path) -> Bench:
    """A lab with something of every kind that recipes ask for; nothing is applied."""
    texts(bench)
    bench.write("base/config.json", json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    bench.write("base/model.safetensors", "")
    bench.write("conf/model/base.yaml", "path: base\n")
    bench.write("conf/quantization/steps.yaml", "of: base\nformat: gguf\ntypes: [Q8_0, Q4_K_M, Q2_K]\n")
    bench.write("conf/env/py.yaml", "python: host\npip: []\n")
    bench.write("conf/experiment/first.yaml", "command: echo first\noutputs: {adapter: a, reference: r}\n")
    bench.write("book.ipynb", json.dumps({"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    bench.write("job.py", "")
    return bench


def test_there_are_recipes_for_experiments() -> None:
    """At least six, each saying what it is for in its first line."""
    found = recipes("experiment")
    assert len(found) >= 6
    for file in found.values():
        assert re.match(r"# \w.{20,}", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("recipe", sorted(recipes("experiment")))
def test_every_recipe_is_valid_and_planned(declared: Bench, recipe: str) -> None:
    """What it leaves open is answered, what it is answered is written, and the plan creates it."""
    text = recipes("experiment")[recipe].read_text()
    answers = [f"{k}={v}" for k, v in OPEN.items() if f"<{k}>" in text]
    code, told = declared("new", "experiment", "mine", "--from", recipe, *answers, "seed=7")
    assert code == 0, told
    assert "seed: 7" in (declared.root / "conf/experiment/mine.yaml").read_text()
    code, told = declared("plan", "--only", "experiment.mine*", "--json")
    assert "experiment.mine" in told, told
    assert not [p for p in json.loads(told)["problems"] if "mine" in str(p.get("file"))], told


def test_answers_come_from_a_file_and_what_is_missing_is_named(declared: Bench) -> None:
    """Model, data, hyperparameters, processes and resources in one file; without them nothing is written."""
    code, told = declared("new", "experiment", "mine", "--from", "lora")
    assert code == 1
    assert "what is the model of experiment.mine?" in told
    assert "base" in told
    answers = declared.write(
        "answers.yaml", "model: base\ndataset: words\nparams: {iterations: 40}\nlauncher: mlx.launch\n"
    )
    code, told = declared("new", "experiment", "mine", "--from", "lora", "--answers", str(answers))
    assert code == 1
    assert "launcher" in told
    assert not (declared.root / "conf/experiment/mine.yaml").exists()
    declared.write("answers.yaml", "script: job.py\nlauncher: mlx.launch\nprocesses: 3\nresources: {memory: 4GB}\n")
    assert declared("new", "experiment", "mine", "--from", "distributed", "--answers", str(answers))[0] == 0
    text = (declared.root / "conf/experiment/mine.yaml").read_text()
    for line in ("processes: 3", "launcher: mlx.launch", "memory: 4GB", "code: [job.py]"):
        assert line in text
    assert "# Several processes" in text, "comments stay"
