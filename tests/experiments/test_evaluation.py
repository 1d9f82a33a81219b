"""Evaluation is an experiment after another: it starts when training ends, and its figures are those of the libraries.

Proves S4-2.2.8-1, S4-2.2.8-2, S4-2.2.8-3, S4-2.2.8-5 and S3-1.1-5.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lab.runs.folder import RunFolder
from lab.sdk import scores
from tests.engines import make
from tests.experiments.conftest import Bench

CASES = json.loads((Path(__file__).parent / "data" / "scores.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(len(c["truth"])))
def test_scores_are_those_of_the_libraries(case: dict[str, Any]) -> None:
    """Accuracy, macro precision, recall and F1, AUC with ties, BLEU and ROUGE are equal to scikit-learn's, sacreBLEU's
    and rouge-score's for the same answers (their versions are in the file)."""
    wanted = dict(case["expected"])
    wanted |= {f"macro{n}": v for n, v in enumerate(wanted.pop("macro"))}
    found = {
        "accuracy": scores.accuracy(case["truth"], case["said"]),
        **{f"macro{n}": v for n, v in enumerate(scores.precision_recall_f1(case["truth"], case["said"]))},
        "a": scores.f1(case["truth"], case["said"], "a"),
        "auc": scores.auc(case["flags"], case["scores"]),
        "bleu": scores.bleu(case["references"], case["answers"]),
        **{f"rouge{k}": scores.rouge(case["references"], case["answers"], k) for k in "12L"},
    }
    assert found == pytest.approx(wanted, abs=1e-12)


def test_scores_of_nothing_are_mistakes_and_one_class_has_no_curve() -> None:
    """Sides of different length are refused; AUC of one class is not a number."""
    with pytest.raises(ValueError, match="2 truths and 1 answers"):
        scores.accuracy(["a", "b"], ["a"])
    assert math.isnan(scores.auc([1, 1], [0.1, 0.2]))
    assert scores.bleu(["a b c d"], ["x y z w"]) == 0
    assert scores.exact_match(["The Cat!"], ["the  cat"]) == 1


TRAIN = "def main(outputs, lr: float = 0.1):\n    outputs['model'].write_text(str(lr))\n    return {'loss': lr}\n"
JUDGE = """\
from lab.sdk import scores
def main(datasets, bad: bool = False):
    lr = float(open(datasets["trained"] + "/model").read())
    if bad:
        raise ValueError("the script is wrong")
    return {"mine": 1 - lr, "accuracy": scores.accuracy([1, 1, 0, 1], [1, 1, 0, int(lr < 0.2)])}
"""


@pytest.fixture
def lab(bench: Bench) -> Bench:
    """Training, and an evaluation of what it made by the user's own script."""
    bench.write("train.py", TRAIN)
    bench.write("judge.py", JUDGE)
    bench.write("conf/experiment/train.yaml", "call: train:main\nparams: {lr: 0.1}\noutputs: {model: model}\n")
    bench.write("conf/experiment/judge.yaml", "call: judge:main\ndatasets: {trained: experiment.train}\n")
    return bench


def newest(bench: Bench, name: str) -> RunFolder:
    """An experiment's newest run."""
    (one, *_) = json.loads(bench("runs", name, "--json")[1])
    return RunFolder(one["folder"])


def test_evaluation_begins_when_training_ends_and_is_linked_to_it(lab: Bench) -> None:
    """In one apply, within five seconds; it names the training's digest; another rate evaluates again."""
    assert lab("apply", "--yes")[0] == 0
    train, judge = newest(lab, "train"), newest(lab, "judge")
    assert 0 <= judge.result["started"] - train.result["ended"] < 5
    assert judge.read("inputs.json")["datasets"]["trained"]["digest"] == train.spec["digest"]
    assert judge.result["metrics"] == {"mine": 0.9, "accuracy": 1.0}
    conf = lab.root / "conf/experiment/train.yaml"
    conf.write_text(conf.read_text().replace("0.1", "0.25"))
    assert lab("apply", "--yes")[0] == 0
    assert newest(lab, "judge").result["metrics"] == {"mine": 0.75, "accuracy": 0.75}


def test_a_script_that_breaks_is_an_error_and_no_figure(lab: Bench) -> None:
    """What a user's evaluation raises is told; no metric is made up."""
    lab.write(
        "conf/experiment/judge.yaml", "call: judge:main\nparams: {bad: true}\ndatasets: {trained: experiment.train}\n"
    )
    code, told = lab("apply", "--yes")
    assert code == 1
    assert "ValueError: the script is wrong" in told
    assert newest(lab, "judge").result["metrics"] == {}


def test_a_version_is_held_against_an_earlier_one(lab: Bench) -> None:
    """The change is shown; one beyond what is expected is flagged, with exit code 1; equal configs differ in no key."""
    runs = []
    for lr in (0.1, 0.1, 0.088, 0.25):
        assert lab("run", "train", f"lr={lr}", "-q")[0] == 0
        runs.append(newest(lab, "train").id)
    assert "params." not in lab("compare", *runs[:2])[1]
    rows = [r for r in lab("compare", runs[0], runs[2])[1].splitlines() if r.startswith("params.")]
    assert [r.split()[0] for r in rows] == ["params.lr"]
    code, told = lab("compare", runs[0], runs[2], "--expect", "loss<=+2%")
    assert code == 0
    assert "0.088 (-12.0%)" in told
    code, told = lab("compare", runs[0], runs[3], "--expect", "loss<=+2%")
    assert code == 1
    assert "loss 0.1 → 0.25 (+150.0%), expected <= +2.0%" in told
    code, told = lab("compare", runs[0], runs[3], "--expect", "accuracy>1")
    assert code == 1
    assert "is no expectation" in told


TASKS = [
    {"question": "The statement", "choices": [" is", " zzz"], "answer": 0},
    {"question": "A class", "choices": [" qqqq", " has"], "answer": 1},
    {"question": "Write:", "answer": "anything"},
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mlx", "llama.cpp"])
def test_task_accuracy_is_measured_through_both_engines(bench: Bench, tmp_path: Path, engine: str) -> None:
    """The recipe on a real model of either format: a figure per kind of question, each answer kept beside it."""
    for module in ("mlx_lm", "llama_cpp"):
        pytest.importorskip(module)
    folder = make.model(tmp_path / "tiny")
    where = folder if engine == "mlx" else make.gguf(folder, tmp_path / "tiny.gguf", "F32")
    bench.write("tasks/test.jsonl", "".join(json.dumps(t) + "\n" for t in TASKS))
    bench.write("conf/profile/all.yaml", '# @package _global_\nresources: {"*": "*"}\n')
    bench.write("conf/model/tiny.yaml", f"path: {where}\n")
    bench.write("conf/dataset/tasks.yaml", "path: tasks\n")
    assert bench("new", "experiment", "eval", "--from", "tasks", "model=tiny", "dataset=tasks", "context=128")[0] == 0
    assert bench("apply", "--yes")[0] == 0, bench("logs", "eval")[1]
    run = newest(bench, "eval")
    kept = [json.loads(line) for line in (run / "outputs/answers.jsonl").read_text().splitlines()]
    assert len(kept) == 3
    right = sum(k["said"] == k["answer"] for k in kept[:2])
    assert run.result["metrics"]["accuracy"] == right / 2
    assert run.result["metrics"]["exact_match"] == float(scores.exact_match(["anything"], [kept[2]["said"]]))
    assert all(len(k["logprobs"]) == 2 and max(k["logprobs"]) < 0 for k in kept[:2])
