"""A conversion asks for the memory that was forecast for it, in the same queue as runs (issue 7, admission)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import admission, child, footprint
from lab.app.lab import Lab
from lab.core.problem import Problems
from tests.engines.test_lifecycle import ROOT, Home


def test_a_conversion_waits_for_memory_that_was_promised_to_others(tmp_path: Path, tiny: Path) -> None:
    """It says what it waits for, `lab status` shows both, and it is made once the other one has ended."""
    home = Home(tmp_path / "lab", tiny)
    home.lab("apply", "--yes")  # what a model weighs is known once it is there
    home.declare("q", "of: tiny\nformat: mlx\nbits: 4\n")
    total = Lab(home.root).host.memory
    assert total
    state = home.root / "state"
    command = [sys.executable, "-m", "lab", "-C", str(home.root), "apply", "--yes"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    with admission.admit(state, total - (64 << 20), total, "other", False, free=lambda: total):
        running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert running.stdout
        said = ""
        for line in running.stdout:
            said += line
            if "waits: " in line:
                break
        assert "are left beside other" in said, said
        assert "run quantization.q waits for" in home.lab("status")
    rest = running.stdout.read()
    assert running.wait(120) == 0, rest
    assert home.actions() == {}
    assert admission.status(state) == []


class Promised:
    """A stage whose step was let in for 40 MB."""

    promised = 40 << 20

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def test_a_child_that_outgrows_its_promise_ends_when_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both figures; while there is room it may go on."""
    (tmp_path / "greedy.py").write_text(
        "import time\ndef grow(args, progress):\n x = bytearray(400 << 20)\n x[::4096] = b'1' * len(x[::4096])\n"
        " time.sleep(args['seconds'])\n return {}\n"
    )
    monkeypatch.setattr(child, "paths", lambda: [str(tmp_path)])
    log = tmp_path / "log"
    monkeypatch.setattr(footprint, "scarce", lambda: False)
    child.run("greedy:grow", {"seconds": 1.5}, log=log, watch=Promised())
    monkeypatch.setattr(footprint, "scarce", lambda: True)
    with pytest.raises(Problems) as e:
        child.run("greedy:grow", {"seconds": 60}, log=log, watch=Promised(), what="greed")
    assert "was promised 41.9 MB" in e.value.problems[0].why
