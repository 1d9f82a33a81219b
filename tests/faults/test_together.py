"""Reading never waits for writing and never sees half of it; long chains and wide fans of light files apply quickly."""

from __future__ import annotations

import json
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
    assert len(done) > 1
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
