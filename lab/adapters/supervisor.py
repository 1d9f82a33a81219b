"""Supervisor: carries out `execute`: one finished run per digest, waited for, never started twice."""

from __future__ import annotations

import time
from typing import Any

from lab.adapters import experiments
from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.step import Cancelled, Stage
from lab.core.steps_runs import Execute
from lab.core.units import duration
from lab.runs.folder import ACTIVE, RunFolder, alive, new_id, tidy
from lab.runs.run import Handle

TELL = 10.0
"""Seconds between two lines about a run that goes on."""


def execute(step: Execute, stage: Stage) -> Facts:
    """The experiment points to a finished run of this digest; raises Problems where the run failed."""
    handle = _there(step, stage)
    if handle is None:
        run, before = _due(step, stage), experiments.pointer(stage.state, step.name)
        # Pointed to before it begins: an apply that is killed meanwhile finds it again.
        experiments.point(stage.state, step.name, {"run": run, "digest": step.digest})
        try:
            handle = experiments.begin(step, stage, run=run)
        except Problems:
            experiments.point(stage.state, step.name, before)
            raise
        stage.say(f"run {handle.id}")
    result = wait(handle, stage)
    if result["state"] != "finished":
        _swept(handle.folder, stage)
        raise failed(step.name, handle.folder, result)
    afterwards(handle.folder)
    experiments.settle(handle.folder)
    _swept(handle.folder, stage)
    return {"run": handle.id, "state": result["state"], "metrics": result["metrics"]}


def _there(step: Execute, stage: Stage) -> Handle | None:
    """The run of this digest that lives, finished whole, or can go on; None where a new one is due."""
    found = experiments.pointer(stage.state, step.name)
    if not found or found.get("digest") != step.digest:
        return None
    folder = RunFolder(stage.state / "runs" / str(found["run"]))
    if _never_began(folder):
        return None
    state = folder.state()
    if state in ACTIVE:
        stage.say(f"run {folder.id} is {state}: it is waited for")
        return Handle(folder)
    if state == "finished" and experiments.whole(folder):
        return Handle(folder)
    if state in ("interrupted", "stopped") and folder.spec and any((folder / "checkpoints").glob("*")):
        stage.say(f"run {folder.id} goes on from its checkpoint")
        return experiments.resume(folder, stage, step.secrets)
    return None


def _due(step: Execute, stage: Stage) -> str:
    """The run that the experiment points to, where a killed apply left it before it began; else a new one."""
    found = experiments.pointer(stage.state, step.name)
    run = str(found.get("run", ""))
    if found.get("digest") == step.digest and _never_began(RunFolder(stage.state / "runs" / run)):
        return run
    return new_id(step.name)


def _never_began(folder: RunFolder) -> bool:
    return not (folder.held() or (folder / "process.json").exists() or (folder / "result.json").exists())


def wait(handle: Handle, stage: Stage) -> dict[str, Any]:
    """The run's result; where the apply is to stop, the run is stopped with it and Cancelled is raised."""
    began = told = time.monotonic()
    pause, waits = 0.002, ""
    while (result := handle.poll()) is None:
        try:
            stage.check()
        except Cancelled:
            handle.stop()
            handle.wait(30)
            raise
        if (why := str(handle.folder.read("process.json").get("waiting", ""))) != waits:
            waits = why
            stage.say(f"run {handle.id} waits: {why}" if why else f"run {handle.id} has begun")
        if time.monotonic() - told > TELL:
            told = time.monotonic()
            last = ", ".join(f"{n} {v:.4g}" for n, v in list(handle.folder.last().items())[:4])
            stage.say(f"{duration(told - began)}" + (f": {last}" if last else ""))
        time.sleep(pause)
        pause = min(pause * 1.2, 0.1)
    return result


def afterwards(folder: RunFolder, seconds: float = 120.0) -> None:
    """The supervisor has done what it does after a run, where the experiment asks for anything."""
    if not folder.spec.get("after"):
        return
    end = time.monotonic() + seconds
    while not (folder / "after.json").exists() and time.monotonic() < end:
        if not alive(folder.read("process.json").get("supervisor") or {}):
            break
        time.sleep(0.005)
    if wrong := folder.read("after.json").get("wrong"):
        raise problem(f"the run {folder.id} finished, but what follows it failed", why="; ".join(wrong))


def _swept(folder: RunFolder, stage: Stage) -> None:
    """What a supervisor that was killed had begun to write is gone."""
    for place in (folder.path, stage.state / "experiments"):
        tidy(place)


def failed(name: str, folder: RunFolder, result: Facts) -> Problems:
    """A run that did not finish, as a problem with the end of what it printed."""
    tail = "; ".join(_tail(folder))
    why = str(result.get("reason") or "it gave no reason")
    if tail and tail not in why:
        why += f" — its log ends: {tail}"
    if result.get("state") == "out of memory":
        do = "raise `resources.memory`, or make it smaller"
    elif result.get("state") == "timed out":
        do = "raise `timeout`"
    else:
        do = f"see `lab logs {folder.id}`"
    seconds = f" after {duration(float(result.get('seconds', 0)))}"
    return problem(f"experiment.{name} {_said(str(result.get('state')))}{seconds}", why=why, do=do)


def _said(state: str) -> str:
    return {"failed": "failed", "timed out": "timed out", "out of memory": "ran out of memory"}.get(
        state, f"was {state}"
    )


def _tail(folder: RunFolder, lines: int = 3) -> list[str]:
    try:
        with open(folder / "output.log", "rb") as f:
            f.seek(max(0, f.seek(0, 2) - 4096))
            text = f.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip()[:200] for line in text.splitlines() if line.strip()][-lines:]
