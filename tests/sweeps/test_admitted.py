"""Runs share the host's memory whoever wants them: what does not fit waits in its turn and is told why.

Proves issue 7, admission at run time, through `lab run`, `lab runs`, `lab status` and `lab stop`, with real processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.adapters import admission
from lab.adapters.footprint import drowning
from lab.runs.after import named
from lab.runs.folder import RunFolder
from tests.sweeps.conftest import Place

HOLD = """
import sys, time
x = bytearray(int(sys.argv[1]) << 20)
print("loss=1", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def small(place: Place) -> Place:
    """A host of 1 GB, and an experiment that is promised 400 MB."""
    place.write("conf/host/small.yaml", {"memory": "1 GB", "name": "small"})
    place.write("conf/lab.yaml", (place.root / "conf/lab.yaml").read_text() + "defaults: [_self_, {host: small}]\n")
    place.write("hold.py", HOLD)
    hold = {
        "command": ["{python}", "-S", "-E", "hold.py", "{megabytes}", "{seconds}"],
        "patterns": {"loss": r"loss=(\S+)"},
    }
    hold |= {"params": {"megabytes": 10, "seconds": 30.0}, "metrics": ["loss"], "when": "manual", "code": ["hold.py"]}
    place.write("conf/experiment/hold.yaml", {**hold, "resources": {"memory": "400 MB"}})
    place.write("conf/experiment/free.yaml", hold)
    return place


def test_what_does_not_fit_waits_is_told_and_goes_when_there_is_room(small: Place) -> None:
    """Two of 400 MB run on 1 GB; the third says what it waits for, and begins when one of them is stopped."""
    for _ in range(3):
        small.lab("run", "hold", "--detach")
        time.sleep(1.1)  # runs are named by the second
    until(lambda: sorted(states(small).values()) == ["queued", "running", "running"])
    (third,) = [n for n, s in states(small).items() if s == "queued"]
    said = small.lab("status")
    assert said.count("holds 400.0 MB of memory") == 2
    assert f"run {third} waits for 400.0 MB of memory: 200.0 MB of 1.0 GB are left beside" in said
    assert "queued" in small.lab("runs")
    first = next(n for n, s in states(small).items() if s == "running")
    small.lab("stop", first)
    until(lambda: states(small)[third] == "running")
    for name, state in states(small).items():
        if state == "running":
            small.lab("stop", name)
    until(lambda: not admission.status(small.state))


def test_a_run_that_waits_can_be_stopped(small: Place) -> None:
    """It ends as stopped without having begun, and nobody waits behind it any more."""
    for _ in range(3):
        small.lab("run", "hold", "--detach")
        time.sleep(1.1)
    until(lambda: "queued" in states(small).values())
    (third,) = [n for n, s in states(small).items() if s == "queued"]
    small.lab("stop", third)
    until(lambda: states(small)[third] == "stopped")
    assert not (small.state / "runs" / third / "output.log").exists()
    for name, state in states(small).items():
        if state == "running":
            small.lab("stop", name)


def test_a_run_is_let_in_for_what_its_last_one_took(small: Place) -> None:
    """None is declared: 600 MB were taken the last time, so two at once do not fit, and the second waits."""
    small.lab("run", "free", "megabytes=600", "seconds=0")
    last = next((small.state / "runs").iterdir())
    assert named(RunFolder(last).spec["drowning"]) is drowning
    experiments = small.state / "experiments"
    experiments.mkdir(exist_ok=True)
    (experiments / "free.json").write_text(json.dumps({"run": last.name, "digest": ""}))
    for _ in range(2):
        small.lab("run", "free", "megabytes=600", "--detach")
        time.sleep(1.1)
    until(lambda: sorted(states(small).values()) == ["finished", "queued", "running"])
    for name, state in states(small).items():
        if state in ("queued", "running"):
            small.lab("stop", name)


def test_a_run_that_outgrows_its_promise_is_ended(small: Place) -> None:
    """It declared 400 MB and takes 700: out of memory, with both figures, before it ends by itself."""
    out = small.lab("run", "hold", "megabytes=700", code=1)
    assert "of the 400 MB it may" in out


def test_one_whose_need_was_only_expected_ends_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what was expected it may go on while there is room; where hardly any is left, it is ended."""
    monkeypatch.setattr(admission.machine, "available", lambda: 500 << 20)
    assert drowning(600 << 20, 300 << 20, 1000 << 20) == ""
    monkeypatch.setattr(admission.machine, "available", lambda: 20 << 20)
    assert drowning(310 << 20, 300 << 20, 1000 << 20) == ""
    assert "21 MB are left" in drowning(600 << 20, 300 << 20, 1000 << 20)


def states(place: Place) -> dict[str, Any]:
    """Run → state."""
    return {p.name: RunFolder(p).state() for p in sorted((place.state / "runs").iterdir())}


def until(true: Callable[[], object]) -> None:
    """It becomes true within a while."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
