"""Reading never waits for writing and never sees half of it; long chains and wide fans of light files apply quickly."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.labs import TestLab


def test_plans_during_an_apply(quick: Path) -> None:
    """Every plan made while an apply works is whole: nothing in it failed, and what is done stays done."""
    files = {f"file/f{n:04}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(1500)}
    lab = TestLab.make(quick / "lab", files)
    child = lab.child("apply", "--yes", "-q")
    done = []
    while child.poll() is None:
        ran = lab("plan", "--json")
        assert ran.code == 0, ran.err
        done.append(json.loads(ran.out)["summary"]["none"])
    _, err = child.communicate()
    assert child.returncode == 0, err
    assert done
    assert done == sorted(done)
    assert lab("plan", "--detailed-exitcode").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["chain", "fan"])
def test_two_thousand_in_a_chain_or_a_fan(quick: Path, shape: str) -> None:
    """Two thousand files, each needing the one before or all the first, in seconds; then there is nothing to do."""
    first = "file.f0000"
    files = {}
    for n in range(2000):
        needs = [] if not n else [first if shape == "fan" else f"file.f{n - 1:04}"]
        files[f"file/f{n:04}"] = f"path: ROOT/out/{n}\ncontent: 'text {n}'\nneeds: {json.dumps(needs)}\n"
    lab = TestLab.make(quick / "lab", files)
    begun = time.process_time()
    assert lab("apply", "--yes", "-q").code == 0
    spent = time.process_time() - begun
    assert "No changes" in lab("plan").out
    print(f"{shape}: {spent:.1f} CPU s")
    assert spent < 40


def test_a_suspended_writer_keeps_its_lock_and_other_work_says_so(quick: Path) -> None:
    """Apply, destroy, state verbs and import are refused with the writer's name; plans and copies are not."""
    files = {f"file/f{n:04}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(800)}
    lab = TestLab.make(quick / "lab", files)
    child = lab.child("apply", "--yes", "-q")
    try:
        until = time.monotonic() + 60
        while not (quick / "lab/out").exists():
            assert time.monotonic() < until
        os.kill(child.pid, signal.SIGSTOP)
        for words in ("apply --yes", "destroy --all --yes", "state rm file.f0001", "import --all"):
            ran = lab(*words.split())
            assert ran.code == 1, (words, ran)
            assert f"(pid {child.pid}" in ran.err + ran.out, (words, ran)
        assert lab("plan").code == 0
        assert lab("state", "backup", str(quick / "copy.sqlite")).code == 0
    finally:
        os.kill(child.pid, signal.SIGCONT)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert lab("plan", "--detailed-exitcode").code == 0


def test_a_writer_on_another_host_is_only_unlocked_by_hand(quick: Path) -> None:
    """Whether it lives cannot be seen from here: nothing is written until somebody says so."""
    lab = TestLab.make(quick / "lab", {"file/a": "path: ROOT/out/a\ncontent: a\n"})
    (quick / "lab/state").mkdir()
    held = {"host": "elsewhere", "boot": "x", "pid": 1, "user": "ann", "verb": "apply", "since": 1.0}
    (quick / "lab/state/lock").write_text(json.dumps(held))
    refused = lab("apply", "--yes")
    assert refused.code == 1
    assert "of ann on elsewhere" in refused.err
    assert "lab state unlock" in refused.err
    assert not (quick / "lab/out").exists()
    assert lab("state", "unlock").code == 0
    assert lab("apply", "--yes").code == 0
