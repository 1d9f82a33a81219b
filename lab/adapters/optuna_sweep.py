"""A sweep is carried out: the study in Optuna, its trials as runs, and a summary the lab points to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lab.adapters import experiments, mlflow_local, queue, spool
from lab.adapters.executors import executor
from lab.adapters.optuna_storage import open_storage, problem_types, shown
from lab.adapters.optuna_study import OptunaStudy
from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.space import nested
from lab.core.step import Stage
from lab.core.steps_runs import Execute
from lab.core.steps_sweeps import ForgetSearch, Search
from lab.core.sweeping import EXHAUSTIVE
from lab.runs import sweep_folder
from lab.runs.folder import RunFolder
from lab.runs.outcome import tree
from lab.runs.run import RunSpec
from lab.runs.sweep import Sweep
from lab.runs.sweep_ports import Ended, Proposed
from lab.runs.sweep_summary import summary

_LASTING = ("user", "host", "platform", "python", "git", "interpreter")
"""What the record of a trial's inputs has in common with all others of the sweep."""
PATIENCE = 120.0
"""Seconds for which a storage may be gone (a server that restarts) before the sweep gives up."""


def search(step: Search, stage: Stage) -> Facts:
    """The study has ended as declared; returns its summary. Raises Problems; Cancelled leaves living trials alone."""
    folder = sweep_folder.study(stage.state, step.study)
    with sweep_folder.coordinated(folder):
        try:
            return _search(step, stage, folder)
        except problem_types() as e:
            if isinstance(e, Problems) or (isinstance(e, OSError) and not isinstance(e, ConnectionError)):
                raise
            raise problem(
                f"the storage of {step.study} failed: {shown(step.storage) or 'journal'}",
                why=str(getattr(e, "orig", None) or e).splitlines()[0][:300],
                do="bring it back and start the sweep again: trials that run go on, none is lost",
            ) from None


def forget(step: ForgetSearch, stage: Stage) -> None:
    """The sweep's summary is gone."""
    (stage.state / "sweeps" / f"{step.name}.json").unlink(missing_ok=True)


def _search(step: Search, stage: Stage, folder: Path) -> Facts:
    storage = stage.secret(step.storage) if step.storage.startswith(_SECRET) else step.storage
    parent = RunFolder(folder)
    parent.write("step.json", asdict(step))
    tuner = Patient(lambda: OptunaStudy(step, open_storage(storage, folder)), stage)
    space = tuner.study.space
    exhaustive = space.size() if str(step.sampler.get("name", "tpe")) in EXHAUSTIVE else None
    secrets = {name: stage.secret(str(reference)) for name, reference in step.secrets.items()}
    one = Execute(name=step.experiment, digest="", spec=step.spec, inputs={}, secrets={}, source={})
    expects = step.memory or experiments.expected(stage.state, one)
    like = queue.placed(RunSpec.of(step.spec, folder=folder), experiments.last(stage.state, one))
    queue.submit(stage.state, like, here=step.executor.get("name", "local") == "local")
    runner = executor(step, stage, _specs(step, stage, expects, like), secrets)
    code = _code(step.watched)
    loop = Sweep(
        step,
        tuner,
        runner,
        exhaustive=exhaustive,
        queued=bool(expects or like.cards or like.quotas) and one.spec.get("isolation") != "inline",
        unchanged=lambda: _changed(code, _code(step.watched)),
        reusable=(lambda values: sweep_folder.kept(stage.state, point(step, values))) if step.reuse else None,
        check=stage.check,
        tell=lambda done, total: stage.progress(done, total, "trials"),
        say=stage.say,
    )
    began = time.time()
    _track(step, stage, parent, None)
    sweep_folder.summarize(stage.state, step.name, summary(step, tuner.ended(), "", began))
    try:
        loop.run()
    finally:
        runner.close()
        whole = loop.over and loop.problem is None and not loop.live
        found = summary(step, loop.ended.values(), loop.over, began, "finished" if whole else "stopped")
        sweep_folder.summarize(stage.state, step.name, found)
        for trial in loop.ended.values():
            if trial.state == "complete" and (run := trial.notes.get("run")):
                sweep_folder.keep(
                    stage.state, point(step, loop.all(trial.params)), RunFolder(stage.state / "runs" / run)
                )
        _track(step, stage, parent, found)
    if loop.problem is not None:
        raise loop.problem
    return found


_SECRET = ("env:", "file:", "keychain:", "command:")


def point(step: Search, values: Mapping[str, Any]) -> str:
    """The identity of a trial of this step with these parameters (all, by dotted names). Pure."""
    return sweep_folder.point(step.inputs.get("base") or {}, values, int(step.spec.get("seed", 42)))


def _specs(
    step: Search, stage: Stage, expects: int | None, like: RunSpec
) -> Callable[[int, Mapping[str, Any]], tuple[RunSpec, Mapping[str, Any]]]:
    known: dict[str, Any] = {}

    def spec(number: int, params: Mapping[str, Any]) -> tuple[RunSpec, Mapping[str, Any]]:
        given = nested(dict(step.spec.get("params") or {}), mlflow_local.flat(params))
        tags = {**(step.spec.get("tags") or {}), "lab.sweep": step.name, "lab.trial": str(number)}
        tags["mlflow.parentRunId"] = mlflow_local.run_id(step.study)
        trial = Execute(
            name=step.experiment,
            digest=point(step, mlflow_local.flat(given)),
            spec={**step.spec, "params": given, "tags": tags},
            inputs={**step.inputs.get("used", {}), "sweep": {"study": step.study, "trial": number}},
            secrets=step.secrets,
            source=step.inputs.get("source") or {},
        )
        folder = stage.state / "runs" / f"{step.study}-{number:05d}"
        made, inputs = experiments.build(trial, stage, folder, known or None)
        known.update({k: v for k, v in inputs.items() if k in _LASTING})
        return replace(made, expects=expects, owner=like.owner, lasts=like.lasts, quotas=like.quotas), inputs

    return spec


# --- the code stands still ------------------------------------------------------------------------------------------

_hashed: dict[str, tuple[tuple[int, ...], str]] = {}


def _code(paths: tuple[str, ...]) -> dict[str, str]:
    """Path → hash; computed again only where a file's size or times moved. Reads."""
    return {p: _hash(Path(p)) for p in paths}


def _hash(path: Path) -> str:
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    try:
        now = tuple(v for f in files for s in (f.stat(),) for v in (s.st_ino, s.st_size, s.st_mtime_ns))
        if _hashed.get(str(path), ((), ""))[0] != now:
            _hashed[str(path)] = (now, "".join(tree(f)["sha256"] for f in files))
    except OSError:
        return "gone"
    return _hashed[str(path)][1]


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    moved = [p for p in before if before[p] != now[p]]
    return f"the code changed while it ran: {', '.join(Path(p).name for p in moved)}" if moved else ""


# --- the parent run in the tracker ----------------------------------------------------------------------------------


def _track(step: Search, stage: Stage, parent: RunFolder, found: Facts | None) -> None:
    """The sweep is a run of its own in the tracker, the parent of its trials. A tracker that fails stops nothing."""
    db = mlflow_local.database(stage.state)
    if found is None:
        tracking = (step.inputs.get("used") or {}).get("tracking") or {}
        project = step.inputs.get("project") or tracking.get("project") or step.experiment
        said = {"study": step.study, "sampler": step.sampler.get("name", "tpe"), "trials": step.trials}
        parent.write(
            "spec.json",
            {
                "id": step.study,
                "name": step.experiment,
                "project": project,
                "params": {**said, "space": dict(step.space)},
                "seed": step.seed,
                "tags": {"lab.sweep": step.name, "lab.parent": "true"},
                "at": time.time(),
            },
        )
    else:
        best = found.get("best") or {}
        lines = [f'[{n}, {int(at * 1000)}, {{"best": {v}}}]' for n, at, v in found["progress"]]
        (parent / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        shipped = parent.read("shipped.json")
        parent.write("shipped.json", {**shipped, "metrics.jsonl": 0})
        state = "finished" if found["state"] == "finished" else "interrupted"
        parent.write("result.json", {"state": state, "ended": time.time(), "reason": str(best.get("number", ""))})
    with contextlib.suppress(mlflow_local.Unready, OSError):
        spool.ship(parent, db)


class Patient:
    """A study whose storage may be gone for a while: each question is asked again until it answers.

    A trial that was begun while the answer was lost is found again and taken, so that none is begun twice.
    """

    def __init__(self, make: Callable[[], OptunaStudy], stage: Stage) -> None:
        self._make, self._stage = make, stage
        self.study = make()
        self._taken: set[int] = set()

    def ask(self) -> Proposed | None:
        """See `Tuner`."""
        failed: list[bool] = []
        found: Proposed | None = self._patiently("ask", failed)
        if found is not None:
            self._taken.add(found.number)
        return found

    def begun(self) -> list[Proposed]:
        """See `Tuner`."""
        found: list[Proposed] = self._patiently("begun", [])
        self._taken |= {t.number for t in found}
        return found

    def ended(self) -> list[Ended]:
        """See `Tuner`."""
        found: list[Ended] = self._patiently("ended", [])
        return found

    def __getattr__(self, name: str) -> Any:
        return lambda *a, **k: self._patiently(name, [], *a, **k)

    def _patiently(self, name: str, failed: list[bool], *args: Any, **more: Any) -> Any:
        until, pause = time.monotonic() + PATIENCE, 0.2
        while True:
            try:
                if failed and name == "ask":
                    left = [t for t in self.study.begun() if t.number not in self._taken]
                    if left:
                        return left[0]
                return getattr(self.study, name)(*args, **more)
            except problem_types() as e:
                if isinstance(e, (Problems, ImportError)) or _final(e) or time.monotonic() > until:
                    raise
                if not failed:
                    self._stage.say("the study's storage does not answer; waiting for it")
                failed.append(True)
                self._stage.check()
                time.sleep(pause)
                pause = min(pause * 1.5, 3.0)
                with contextlib.suppress(Problems, *problem_types()):
                    self.study = self._make()


def _final(error: BaseException) -> bool:
    """Whether asking again cannot help: a fault of ours or of the data, not of a connection."""
    import sqlalchemy.exc

    if isinstance(error, sqlalchemy.exc.SQLAlchemyError):
        return not isinstance(
            error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)
        )
    if type(error).__name__ == "StorageInternalError":
        return False
    return not isinstance(error, ConnectionError)
