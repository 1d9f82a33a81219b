"""Readers: waits for the runs and sweeps that read what is about to change."""

from __future__ import annotations

import time

from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_runs import Await
from lab.runs.readers import alone, readers, reads


def quiet(step: Await, stage: Stage) -> None:
    """Nothing reads it any more; raises a Problem with those that still do when patience ends.

    Its change is in the ledger by now: what begins later sees that, and does not begin (`lab.app.reading`).
    """
    with alone(stage.state):
        found = readers(stage.state).get(stage.address, [])
    found = sorted(r for r in found if step.runs or not r.startswith("runs/"))
    until, told, pause = time.monotonic() + step.patience, False, 0.01
    while left := [r for r in found if reads(stage.state, r)]:
        names = ", ".join(r.rpartition("/")[2] for r in left[:3]) + (f" and {len(left) - 3} more" if left[3:] else "")
        if time.monotonic() >= until:
            raise problem(
                f"{stage.address} is read by {names}",
                why="a run reads to its end what it was given, so this is left as it is",
                do=f"wait for it, or `lab stop {left[0].rpartition('/')[2]}`; then do this again",
            )
        if not told:
            stage.say(f"waits for {names}, which reads it")
            told = True
        stage.check()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)
