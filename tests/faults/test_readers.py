"""A run that begins while an apply is under way, and the apply: one of them sees the other, whoever comes first.

Proves S3-VI.4-1.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.adapters import readers as waiting
from lab.app.lab import Lab
from lab.core.problem import Problems
from lab.core.steps_runs import Await
from lab.runs import readers
from tests.labs import TestLab
from tests.models import make

RUN = (
    "command: 'while [ ! -e ROOT/go ]; do sleep 0.02; done; sha256sum {models.base}/* > {outputs.seen}'\n"
    "when: manual\nmodels: {base: base}\noutputs: {seen: seen.txt}\n"
)


@pytest.fixture
def lab(tmp_path: Path) -> TestLab:
    """A model that was applied and is now declared otherwise, and an experiment that reads it."""
    import numpy

    for n in (1, 2):
        make.safetensors(tmp_path / f"m{n}", tensors={"lm_head.weight": numpy.full((96, 64), n, "float16")})
    made = TestLab.make(
        tmp_path / "lab",
        {"model/base": f"path: {tmp_path}/m1\nplace: copy\n", "experiment/long": RUN},
        "apply: {patience: 0.1}\n",
    )
    assert made("apply", "--yes").code == 0
    made.write("conf/model/base.yaml", f"path: {tmp_path}/m2\nplace: copy\n")
    return made


def test_a_run_does_not_begin_with_what_an_apply_is_changing(lab: TestLab) -> None:
    with readers.alone(lab.root / "state"):
        apply = lab.child("apply", "--yes")
        until = time.monotonic() + 60
        while not Lab.find(lab.root).records["model.base"].pending:  # type: ignore[index]
            assert time.monotonic() < until
            assert apply.poll() is None
            time.sleep(0.05)
        apply.send_signal(signal.SIGSTOP)
        while psutil.Process(apply.pid).status() != psutil.STATUS_STOPPED:  # else it may yet come to be alone
            assert time.monotonic() < until
            time.sleep(0.01)
    ran = lab.run("run", "long", "--detach")
    apply.send_signal(signal.SIGCONT)
    assert ran.code == 1, ran
    assert "model.base is being changed" in ran.err
    out, err = apply.communicate(timeout=180)
    assert apply.returncode == 0, (out, err)
    assert not list((lab.root / "state/runs").glob("*/spec.json"))
    (lab.root / "go").touch()
    assert lab.run("run", "long").code == 0
    assert "No changes" in lab("plan").out


def test_a_suspended_one_that_is_alone_with_the_readers_keeps_nobody_waiting_for_ever(
    lab: TestLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PATIENCE", 0.1)
    with readers.alone(lab.root / "state"):
        for words in (("run", "long", "--detach"), ("apply", "--yes")):
            ran = lab(*words)
            assert ran.code == 1
            assert "is it suspended?" in ran.out + ran.err
    assert lab("apply", "--yes").code == 0


def test_an_apply_sees_a_run_that_began_after_it_was_planned(lab: TestLab) -> None:
    """Also where it goes on after a kill, and had found nobody before it."""
    step = Await(0.1)
    assert not step.lasting
    stage: Any = Lab.find(lab.root).work("model.base")  # type: ignore[arg-type]
    waiting.quiet(step, stage)
    assert lab.run("run", "long", "--detach").code == 0
    with pytest.raises(Problems, match=r"model\.base is read by long-"):
        waiting.quiet(step, stage)
    ran = lab.run("apply", "--yes")
    assert ran.code == 1
    assert "model.base is read by long-" in ran.err
    (lab.root / "go").touch()
    until = time.monotonic() + 60
    while not list((lab.root / "state/runs").glob("*/result.json")):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert lab.run("apply", "--yes").code == 0
