"""A sweep that is killed anywhere, any number of times, ends with exactly the trials asked for.

Proves DC-8 (rerun continues the study), S3-5.3-1 (killed trials are retried, none is lost or counted twice).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.conftest import Place

WORDS = ("trial", "x=interval(-5,5)", "y=interval(-5,5)", "--sampler", "random")


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
    _killed(place, trials=16, workers=2, kills=4, seed=3)


@pytest.mark.slow
def test_two_hundred_trials_with_four_workers_killed_twenty_times(place: Place) -> None:
    """200 trials, 4 at once, 20 kills of coordinator, supervisors and programs at random."""
    _killed(place, trials=200, workers=4, kills=20, seed=1)


def _killed(place: Place, trials: int, workers: int, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    words = ("sweep", *WORDS, "seconds=0.2", "--trials", str(trials), "--parallel", str(workers), "--json")
    running = place.start(*words)
    done: Counter[str] = Counter()
    until = time.monotonic() + 280
    try:
        while sum(done.values()) < kills and time.monotonic() < until:
            time.sleep(chance.uniform(0.2, 0.9))
            if running.poll() is not None:
                break
            left = [w for w in ("coordinator", "supervisor", "child") if done[w] < (kills + 2) // 3]
            what = chance.choice(left)
            if what == "coordinator":
                running.kill()
                running.wait()
                done[what] += 1
                running = place.start(*words)
            elif (victim := _victim(place.state, what, chance)) is not None:
                os.kill(victim, signal.SIGKILL)
                done[what] += 1
        out, _ = running.communicate(timeout=max(10, until - time.monotonic()))
        assert running.returncode == 0, out
    finally:
        running.kill()
    assert sum(done.values()) == kills, done
    found = json.loads((place.state / "sweeps" / "trial.json").read_text())
    kept = place.study(found["study"]).trials
    assert [t.state.name for t in kept] == ["COMPLETE"] * trials, [
        t.user_attrs for t in kept if t.state.name != "COMPLETE"
    ]
    assert [t.number for t in kept] == list(range(trials))
    assert len({(t.params["x"], t.params["y"]) for t in kept}) == trials
    for t in kept:
        right = (t.params["x"] - 1) ** 2 + (t.params["y"] + 2) ** 2
        assert t.value == right
        run = place.state / "runs" / f"{found['study']}-{t.number:05d}"
        assert json.loads((run / "params.json").read_text())["x"] == t.params["x"]
        assert json.loads((run / "result.json").read_text())["state"] == "finished"
    assert found["best"]["values"]["loss"] == min(t.value for t in kept)
    assert found["complete"] == trials
    print(f"{trials} trials, kills {dict(done)}")


def _victim(state: Path, what: str, chance: random.Random) -> int | None:
    """The process id of a living trial's supervisor or program."""
    living = []
    for folder in sorted((state / "runs").glob("*")) if (state / "runs").exists() else ():
        if (folder / "result.json").exists() or not (folder / "process.json").exists():
            continue
        try:
            process: dict[str, Any] = json.loads((folder / "process.json").read_text())[what]
        except (ValueError, KeyError, OSError):
            continue
        if Path(f"/proc/{process['pid']}").exists():
            living.append(int(process["pid"]))
    return chance.choice(living) if living else None


def test_a_power_cut_that_emptied_a_trials_files_changes_nothing_of_it(place: Place) -> None:
    """The study remembers what the trial is: it runs again with the parameters it was drawn with."""
    words = ("sweep", *WORDS, "seconds=2", "--trials", "1", "--json")
    running = place.start(*words)
    until = time.monotonic() + 60
    while (victim := _victim(place.state, "child", random.Random(0))) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    supervisor = _victim(place.state, "supervisor", random.Random(0))
    assert supervisor is not None
    running.kill()
    running.communicate()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(victim, signal.SIGKILL)
    (run,) = (place.state / "runs").iterdir()
    drawn = json.loads((run / "params.json").read_text())
    for name in ("params.json", "inputs.json", "spec.json", "process.json"):
        (run / name).write_text("")
    found = json.loads(place.lab(*words))
    assert found["complete"] == 1
    assert json.loads((run / "params.json").read_text()) == drawn
    assert found["best"]["params"] == {"x": drawn["x"], "y": drawn["y"]}
