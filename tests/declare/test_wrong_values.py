"""A value is never taken for another: wrong types, no numbers and misspelt words inside a block are told where they stand."""

# ruff: noqa: E501

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lab.apply.results import explained
from lab.cli import main as cli
from lab.core.problem import Problems
from lab.ledger.stamp import read_stamp

from .conftest import GOOD, LAB, Make, right, wrong

SWEEP = "experiment: e\nobjective: loss\ntrials: 3\nspace: {lr: [1, 2]}\n"
RUN = "command: 'true'\nparams: {lr: 1}\n"
DATA = "path: data\n"
WRONG = [
    ("file/a.yaml", GOOD + "protect: 1\n", 3, "`protect` must be true or false, not the number 1"),
    ("file/a.yaml", GOOD + 'description: "a\\0b"\n', 3, "a text holds a NUL character"),
    ("file/a.yaml", GOOD + "template: ''\nvalues: {a: .nan}\n", 4, "`values.a`"),
    ("host/box.yaml", "memory: -1\n", 1, "`memory` must be at least 0, not the number -1"),
    ("host/box.yaml", "bandwidth: .inf\n", 1, "`bandwidth` must be a finite number"),
    ("host/box.yaml", f"memory: {'9' * 400}GB\n", 1, "it has too many digits"),
    ("quantization/q.yaml", "of: m\nformat: [gguf]\n", 2, "`format` must be"),
    ("quantization/q.yaml", "of: m\nformat: mlx\nbits: true\n", 3, "`bits` must be a whole number or a list, not true"),
    ("maintenance/m.yaml", "logs: {keep: true}\n", 1, "`logs.keep` must be a whole number, not true"),
    (
        "model/m.yaml",
        "url:\n  a: {url: 'https://h/a', sha256: 5}\n",
        2,
        "`url.a.sha256` must be text, not the number 5",
    ),
    ("model/m.yaml", "url:\n  a: {url: 'https://h/a', b: {}}\n", 2, "unknown key `b` in model.m.url.a"),
    ("guest/g.yaml", "keys: [a]\nmay: [model.m]\nafter: null\n", 3, "`after` must be a list, not empty"),
    ("sweep/s.yaml", SWEEP + "after: file.a\n", 5, "`after` must be a list, not the text `file.a`"),
    ("sweep/s.yaml", SWEEP.replace("trials: 3", "trials: true"), 3, "`trials` must be a whole number, not true"),
    ("sweep/s.yaml", SWEEP + "budget: .inf\n", 5, "`budget` must be a finite number"),
    ("sweep/s.yaml", SWEEP + "stop: {patience: 0}\n", 5, "`patience` is a number of trials"),
    ("sweep/s.yaml", SWEEP + "pruner: {nmae: median}\n", 5, "say which by `name:`"),
    ("sweep/s.yaml", SWEEP + "executor: {hosts: [a]}\n", 5, "say which by `name:`"),
    ("sweep/s.yaml", SWEEP.replace("[1, 2]", '{low: 1, high: 2, log: "false"}'), 4, "lr: `log` is true or false"),
    ("experiment/e.yaml", RUN + "resources: {memory: 5 apples}\n", 3, "'5 apples' is no size"),
    (
        "experiment/e.yaml",
        RUN + "resources: {memroy: 5GB}\n",
        3,
        "unknown key `memroy` in experiment.e.resources — did you mean `memory`?",
    ),
    (
        "experiment/e.yaml",
        RUN + "resources: {accelerator: cdua}\n",
        3,
        "`resources.accelerator` must be `metal` or `cuda`",
    ),
    ("experiment/e.yaml", RUN + "resources: {cores: true}\n", 3, "`resources.cores` must be a whole number, not true"),
    ("experiment/e.yaml", RUN + "stop: {patience: 5}\n", 1, "`stop` needs a `metric` to judge by"),
    ("experiment/e.yaml", RUN + "stop: {metric: loss, patience: -1}\n", 3, "`stop.patience` must be at least 1"),
    ("experiment/e.yaml", RUN + "keep: {best: {goal: max}}\n", 3, "`keep.best.metric` is missing"),
    ("experiment/e.yaml", RUN + "tolerance: {loss: -1}\n", 3, "`tolerance.loss` must be at least 0"),
    ("experiment/e.yaml", RUN + "timeout: -5\n", 3, "`timeout` must be more than 0"),
    ("dataset/d.yaml", DATA + "policy: {guest: {deny: email}}\n", 2, "`policy.guest.deny` must be a list"),
    (
        "dataset/d.yaml",
        DATA + "policy: {guest: {dney: [email]}}\n",
        2,
        "unknown key `dney` in dataset.d.policy.guest — did you mean `deny`?",
    ),
    (
        "dataset/d.yaml",
        DATA + "checks: {rows: many}\n",
        2,
        "`checks.rows` must be a whole number or a list or a mapping",
    ),
    ("dataset/d.yaml", DATA + "transform: [{select: text}]\n", 2, "`transform.0.select` must be a list"),
    ("dataset/d.yaml", DATA + "splits: {a: .nan, b: 1}\n", 2, "`splits.a` must be a finite number"),
]


@pytest.mark.parametrize(("file", "text", "line", "said"), WRONG, ids=[f"{f} {s[:40]}" for f, _, _, s in WRONG])
def test_a_wrong_value_is_told_with_its_line(make: Make, file: str, text: str, line: int, said: str) -> None:
    found = [p for p in wrong(make({file: text})) if p.file == f"conf/{file}"]
    assert [(p.line, said in p.summary) for p in found] == [(line, True)], found


def test_text_may_stand_for_a_number(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable has no other form."""
    monkeypatch.setenv("LAB_TEST_N", "7")
    root = make({"maintenance/m.yaml": "logs: {keep: '${oc.env:LAB_TEST_N}'}\nprotect: ${oc.env:LAB_TEST_P,yes}\n"})
    made = right(root).declarations["maintenance.m"]  # type: ignore[index]
    assert (made.logs.keep, made.protect) == (7, True)  # type: ignore[attr-defined]


def test_an_error_nobody_foresaw_in_what_is_declared_is_not_called_a_damaged_ledger(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError("no foot")

    monkeypatch.setattr("lab.declare.load", stumble)
    root: Path = make({"file/a.yaml": GOOD})
    with pytest.raises(RuntimeError, match="no foot"):
        cli.main(["-C", str(root), "plan"], io.StringIO(), io.StringIO())


def test_a_kind_that_stumbles_over_a_block_names_its_file(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of others too: what their own validators or checks raise is told of the block they were given."""
    from lab.kinds.file import File

    def stumble(self: object, context: object) -> None:
        raise TypeError("not what I thought")

    monkeypatch.setattr(File, "check", stumble)
    (found,) = wrong(make({"file/a.yaml": GOOD}))
    assert found.file == "conf/file/a.yaml"
    assert "cannot be understood (TypeError: not what I thought)" in found.summary


def test_bytes_that_are_no_text_are_refused_where_they_come_in(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line and from the environment they come as half characters, which no plan could hold."""
    with pytest.raises(Problems, match="is not UTF-8 text"):
        cli.main(["plan", "file.a.path=\udcff"], io.StringIO(), io.StringIO())
    monkeypatch.setenv("LAB_TEST_N", "\udcff")
    (found,) = wrong(make({"file/a.yaml": "path: /a\ncontent: ${oc.env:LAB_TEST_N}\n"}))
    assert (found.line, found.summary) == (2, "the environment variable LAB_TEST_N is not UTF-8 text")


def test_kinds_are_not_asked_in_a_lab_whose_head_is_wrong(make: Make) -> None:
    """They could only stumble over what is told already."""
    head = LAB.replace("store: /srv/store", "store: /srv/store, stores: true")
    found = wrong(make({"lab.yaml": head, "model/m.yaml": "path: data\n"}))
    assert [p.file for p in found] == ["conf/lab.yaml"]


def test_a_file_nested_too_deeply_is_told_and_no_fault(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    stamp.write_text("[" * 100_000)
    assert read_stamp(stamp) is None
    with pytest.raises(RecursionError) as caught:
        json.loads(stamp.read_text())
    told = explained(caught.value)
    assert told is not None
    assert "nested too deeply" in told.summary
