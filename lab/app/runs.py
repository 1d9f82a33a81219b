"""runs: what ran and runs; and what to do with one: stop, pause, resume, read its log, compare, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lab.adapters import spool
from lab.adapters.mlflow_local import Unready, database
from lab.adapters.supervisor import afterwards
from lab.app.guest import note
from lab.app.lab import Lab
from lab.app.reading import unchanging
from lab.app.run import folder, named, step_of
from lab.core.problem import problem
from lab.runs import record as record_
from lab.runs.compare import Comparison
from lab.runs.compare import compare as compare_
from lab.runs.folder import ACTIVE, RunFolder
from lab.runs.listing import Line, line, listed
from lab.runs.readers import given
from lab.runs.run import Handle, again


def runs(
    lab: Lab, experiment: str = "", where: Sequence[str] = (), sort: str = "-started", limit: int = 0
) -> list[Line]:
    """The runs, newest first; filtered by experiment and conditions such as `state=failed` or `loss<2`."""
    return listed(lab.state, experiment.removeprefix("experiment."), where, sort, limit)


def settled(lab: Lab, name: str) -> None:
    """What follows a run is done, and what it measured is learnt; raises Problems with what went wrong there."""
    from lab.app.calibrate import learn_run

    run = folder(lab, name)
    afterwards(run)
    learn_run(lab, run)


def show(lab: Lab, name: str) -> Line:
    """One run."""
    return line(folder(lab, name))


def stop(lab: Lab, name: str, seconds: float = 15.0) -> Line:
    """The run has ended, within the grace it declares; a Problem where it had ended before."""
    run = folder(lab, name)
    state = line(run).state
    if state not in ACTIVE:
        raise problem(f"{run.id} does not run", why=f"it is {state}", do="see `lab runs`")
    _note(lab, "stop", run)
    handle = Handle(run)
    handle.stop()
    handle.wait(seconds)
    return line(run)


def pause(lab: Lab, name: str) -> Line:
    """The run uses no processor until it is resumed."""
    run = folder(lab, name)
    state = line(run).state
    if state != "running":
        raise problem(f"{run.id} cannot be paused", why=f"it is {state}", do="only a running one can")
    _note(lab, "runs pause", run)
    Handle(run).pause()
    return _until(run, "paused")


def resume(lab: Lab, name: str) -> Line:
    """A paused run goes on; one that was stopped, killed or interrupted starts again from its checkpoints."""
    run = folder(lab, name)
    state = line(run).state
    if state == "paused":
        _note(lab, "resume", run)
        Handle(run).unpause()
        return _until(run, "running")
    if state in ACTIVE:
        raise problem(f"{run.id} cannot be resumed", why=f"it is {state}", do=f"see `lab logs {run.id} -f`")
    if state == "finished":
        raise problem(
            f"{run.id} cannot be resumed", why="it has finished", do=f"run it anew: `lab run {line(run).experiment}`"
        )
    secrets = {}
    if run.spec.get("secrets"):
        stage = lab.work("experiment.resume")
        step = step_of(lab, named(lab, str(run.spec["name"])))
        secrets = {n: stage.secret(str(r)) for n, r in step.secrets.items()}
    _note(lab, "resume", run)
    unchanging(lab, given(run.read("inputs.json")))
    again(run, secrets)
    return _until(run, "running")


def _note(lab: Lab, verb: str, run: RunFolder) -> None:
    project = str((run.spec.get("tracker") or {}).get("project") or run.spec.get("project") or "")
    note(lab, f"lab {verb}", run=run.id, projects=[project] if project else [])


def _until(run: RunFolder, state: str, seconds: float = 5.0) -> Line:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = run.state()
        if now == state or (run / "result.json").exists():
            break
        time.sleep(0.02)
    return line(run)


def logs(lab: Lab, name: str, *, follow: bool = False, tail: int = 0, file: str = "output.log") -> Iterator[bytes]:
    """What a run printed, in pieces; with `follow` until it has ended."""
    run = folder(lab, name)
    path = run / file
    at = 0
    if tail and path.exists():
        data = path.read_bytes()
        lines = data.splitlines(keepends=True)
        at = len(data) - sum(len(one) for one in lines[-tail:])
    while True:
        ended = run.state() not in ACTIVE
        if path.exists():
            with open(path, "rb") as f:
                f.seek(at)
                while piece := f.read(1 << 16):
                    at += len(piece)
                    yield piece
        if ended or not follow:
            return
        time.sleep(0.1)


def compare(lab: Lab, names: Sequence[str], *, everything: bool = False, metrics: Sequence[str] = ()) -> Comparison:
    """Runs side by side; an experiment's name stands for its newest run."""
    if len(names) < 2:
        raise problem("a comparison needs at least two runs", do="name them: `lab compare RUN RUN`")
    return compare_([folder(lab, n) for n in names], everything=everything, metrics=metrics)


def record(lab: Lab, name: str, where: Path | None = None) -> Path:
    """The run's Markdown record; by default in docs/experiments/."""
    run = folder(lab, name)
    return record_.write(run, where or lab.root / "docs" / "experiments", str(run.spec.get("goal", "")))


def sync(lab: Lab, told: Callable[[str], None] = lambda text: None) -> tuple[int, int]:
    """What waits in the runs' folders is in the tracker: how many runs and points; raises Problems where it refuses."""
    done = points = 0
    from lab.runs.run import runs as every

    for run in every(lab.state):
        if not run.spec or not spool.pending(run):
            continue
        line(run)
        try:
            points += spool.ship(run, database(lab.state))
        except Unready as e:
            raise problem(
                "the tracking store takes nothing now", why=str(e), do="nothing is lost; try again later"
            ) from e
        told(run.id)
        done += 1
    return done, points
