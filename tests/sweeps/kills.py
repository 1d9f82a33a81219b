"""A sweep whose coordinator, workers, supervisors and programs are killed at random, and what must be left of it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.sweeps.conftest import Place

WORDS = ("trial", "x=interval(-5,5)", "y=interval(-5,5)", "--sampler", "random")


def killed(
    place: Place,
    more: tuple[str, ...],
    *,
    trials: int,
    workers: int,
    kills: Mapping[str, int],
    seed: int,
    midway: Callable[[], None] | None = None,
    study: Callable[[str], Any] | None = None,
) -> None:
    """The sweep is carried to its end through all `kills` (what → how often) and `midway`; then it is whole.

    `study` loads it by name where it is in no journal.
    """
    chance = random.Random(seed)
    words = ("sweep", *WORDS, *more, "seconds=0.2", "--trials", str(trials), "--parallel", str(workers), "--json")
    running = place.start(*words)
    done: Counter[str] = Counter()
    until = time.monotonic() + 1200
    half = sum(kills.values()) // 2
    try:
        while sum(done.values()) < sum(kills.values()) and time.monotonic() < until:
            time.sleep(chance.uniform(0.2, 0.9))
            if running.poll() is not None:
                break
            if midway is not None and sum(done.values()) == half:
                midway()
                midway = None
            what = chance.choice([w for w, n in kills.items() if done[w] < n])
            if what == "coordinator":
                running.kill()
                running.wait()
                done[what] += 1
                running = place.start(*words)
            elif (found := victim(place.state, what, chance, running.pid)) is not None:
                os.kill(found, signal.SIGKILL)
                done[what] += 1
        out, _ = running.communicate(timeout=max(10, until - time.monotonic()))
        assert running.returncode == 0, out
    finally:
        running.kill()
    assert done == kills, done
    whole(place, trials, study or place.study)


def whole(place: Place, trials: int, study: Callable[[str], Any]) -> None:
    """Exactly so many trials, all complete, no point twice, each with its own value; the best is right."""
    found = json.loads((place.state / "sweeps" / "trial.json").read_text())
    kept = study(found["study"]).trials
    assert [t.state.name for t in kept] == ["COMPLETE"] * trials, [
        t.user_attrs for t in kept if t.state.name != "COMPLETE"
    ]
    assert [t.number for t in kept] == list(range(trials))
    assert len({(t.params["x"], t.params["y"]) for t in kept}) == trials
    for t in kept:
        assert t.value == (t.params["x"] - 1) ** 2 + (t.params["y"] + 2) ** 2
        run = place.state / "runs" / f"{found['study']}-{t.number:05d}"
        assert json.loads((run / "params.json").read_text())["x"] == t.params["x"]
        assert json.loads((run / "result.json").read_text())["state"] == "finished"
    assert found["best"]["values"]["loss"] == min(t.value for t in kept)
    assert found["complete"] == trials


def victim(state: Path, what: str, chance: random.Random, coordinator: int = 0) -> int | None:
    """The process id of a living trial's supervisor or program, or of the engine's worker that started it."""
    living = []
    for folder in sorted((state / "runs").glob("*")) if (state / "runs").exists() else ():
        if (folder / "result.json").exists() or not (folder / "process.json").exists():
            continue
        try:
            process: dict[str, Any] = json.loads((folder / "process.json").read_text())
            pid = int(process["supervisor" if what == "worker" else what]["pid"])
        except (ValueError, KeyError, OSError):
            continue
        if what == "worker":
            pid = parent(pid)
        if pid not in (0, 1, coordinator) and Path(f"/proc/{pid}").exists():
            living.append(pid)
    return chance.choice(living) if living else None


def parent(pid: int) -> int:
    """The parent of a process; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
