"""A sweep that is killed anywhere, any number of times, ends with exactly the trials asked for.

Proves DC-8 (rerun continues the study), S3-5.3-1 (killed trials are retried, none is lost or counted twice).
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lab.runs import sweep_folder
from tests.sweeps.conftest import Place
from tests.sweeps.kills import WORDS, killed, victim


def test_raising_the_trials_goes_on_and_the_same_again_does_nothing(place: Place) -> None:
    """The trials of before stay, under their numbers; the same command again begins none."""
    first = place.sweep(*WORDS, "--trials", "3", "--parallel", "2")
    before = [t.params for t in place.study(first["study"]).trials]
    second = place.sweep(*WORDS, "--trials", "5", "--parallel", "2")
    after = [t.params for t in place.study(first["study"]).trials]
    again = place.sweep(*WORDS, "--trials", "5")
    assert second["study"] == first["study"] == again["study"]
    assert (second["complete"], again["complete"]) == (5, 5)
    assert after[:3] == before
    assert len({json.dumps(p) for p in after}) == 5
    assert len((place.root / "tried").read_text().splitlines()) == 5


def test_a_few_kills_of_everything(place: Place) -> None:
    """Coordinator, supervisors and programs are killed; 16 of 16 trials are complete, none twice."""
    killed(place, (), trials=16, workers=2, kills={"coordinator": 2, "supervisor": 1, "child": 1}, seed=3)


@pytest.mark.slow
def test_two_hundred_trials_with_four_workers_killed_twenty_times(place: Place) -> None:
    """200 trials, 4 at once, 20 kills of coordinator, supervisors and programs at random."""
    killed(place, (), trials=200, workers=4, kills={"coordinator": 6, "supervisor": 7, "child": 7}, seed=1)


def test_a_power_cut_that_emptied_a_trials_files_changes_nothing_of_it(place: Place) -> None:
    """The study remembers what the trial is: it runs again with the parameters it was drawn with."""
    chance = random.Random(0)
    words = ("sweep", *WORDS, "seconds=2", "--trials", "1", "--json")
    running = place.start(*words)
    until = time.monotonic() + 60
    while (child := victim(place.state, "child", chance)) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    supervisor = victim(place.state, "supervisor", chance)
    assert supervisor is not None
    running.kill()
    running.communicate()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    (run,) = (place.state / "runs").iterdir()
    drawn = json.loads((run / "params.json").read_text())
    for name in ("params.json", "inputs.json", "spec.json", "process.json"):
        (run / name).write_text("")
    found = json.loads(place.lab(*words))
    assert found["complete"] == 1
    assert json.loads((run / "params.json").read_text()) == drawn
    assert found["best"]["params"] == {"x": drawn["x"], "y": drawn["y"]}


def test_a_lock_that_outlives_its_dead_holder_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """A coordinator that is killed while it starts a program leaves its open files to it until that program runs."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    with open(tmp_path / "lock", "a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(f"process {dead.pid} on {socket.gethostname()} since 10:00:00\n")
        held.flush()
        timer = threading.Timer(0.3, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        timer.start()
        with sweep_folder.coordinated(tmp_path):
            assert str(os.getpid()) in sweep_folder.coordinator(tmp_path)
        timer.join()
