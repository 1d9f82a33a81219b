"""What a sweep has found: its table, importance, front, pictures; and its end by hand."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.app.lab import Lab
from lab.core.facts import Facts
from lab.core.problem import did_you_mean, problem
from lab.runs import sweep_folder
from lab.runs.folder import RunFolder
from lab.runs.sweep_ports import Ended
from lab.runs.sweep_summary import best, trial


@dataclass(frozen=True)
class Shown:
    """A sweep as it stands."""

    name: str
    study: str
    experiment: str
    objective: Mapping[str, str]
    asked: int | None
    ended: tuple[Ended, ...]
    living: tuple[Facts, ...]
    """`{number, params, step, values, state}` of trials that have not ended."""
    best: tuple[Ended, ...]
    """The best trial, or the front."""
    coordinator: str
    """Who carries it on now; empty where nobody does."""
    why: str
    """Why it ended; empty while it has not."""
    rate: float | None
    """Trials per second over the last ones."""
    left: float | None
    """Seconds until the trials asked for have ended, at that rate."""

    @property
    def counts(self) -> dict[str, int]:
        """State → how many trials ended in it."""
        states = ("complete", "pruned", "failed", "infeasible")
        return {s: n for s in states if (n := sum(1 for t in self.ended if t.state == s))}


def study(lab: Lab, name: str) -> RunFolder:
    """The study in force of a sweep, or the study of that name; a Problem with the nearest where there is none."""
    name = name.removeprefix("sweep.")
    found = sweep_folder.summary(lab.state, name).get("study") or name
    folder = RunFolder(sweep_folder.study(lab.state, str(found)))
    if not (folder / "step.json").exists():
        known = [*(s["name"] for s in studies(lab)), *(s["study"] for s in studies(lab))]
        raise problem(
            f"no sweep `{name}` was ever begun{did_you_mean(name, known)}",
            why=f"there are {', '.join(dict.fromkeys(known))}" if known else "none was begun here",
            do=f"begin it with `lab sweep {name}`",
        )
    return folder


def studies(lab: Lab) -> list[dict[str, Any]]:
    """Every study: its name, its sweep's, and whether it is the one in force."""
    out = []
    for path in sorted((lab.state / "sweeps" / "studies").glob("*/step.json")):
        step = RunFolder(path.parent).read("step.json")
        found = sweep_folder.summary(lab.state, str(step.get("name")))
        out.append(
            {
                "study": path.parent.name,
                "name": step.get("name"),
                "experiment": step.get("experiment"),
                "trials": step.get("trials"),
                "in force": found.get("study") == path.parent.name,
                "running": bool(sweep_folder.coordinator(path.parent)),
            }
        )
    return out


def show(lab: Lab, name: str) -> Shown:
    """How a sweep stands now. Reads."""
    from lab.adapters import optuna_results

    folder = study(lab, name)
    step = folder.read("step.json")
    done, begun = optuna_results.trials(optuna_results.load(folder))
    living = [_living(lab, folder.id, number, params) for number, params in begun]
    counted = [t for t in done if t.state != "infeasible"]
    recent = sorted(t.ended for t in counted)[-20:]
    rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 2 and recent[-1] > recent[0] else None
    asked = step.get("trials")
    kept = sweep_folder.summary(lab.state, str(step["name"]))
    return Shown(
        name=str(step["name"]),
        study=folder.id,
        experiment=str(step["experiment"]),
        objective=step["objective"],
        asked=asked,
        ended=tuple(done),
        living=tuple(living),
        best=tuple(best(done, step["objective"])),
        coordinator=sweep_folder.coordinator(folder.path),
        why=str(kept.get("ended") or "") if kept.get("study") == folder.id else "",
        rate=rate,
        left=max(0, asked - len(counted)) / rate if asked and rate else None,
    )


def _living(lab: Lab, name: str, number: int, params: Mapping[str, Any]) -> Facts:
    run = RunFolder(lab.state / "runs" / f"{name}-{number:05d}")
    step = max((s for s, _, _ in run.metrics()), default=None)
    return {"number": number, "params": params, "step": step, "values": run.last(), "state": run.state(), "run": run.id}


def to_json(found: Shown) -> dict[str, Any]:
    """A sweep as it stands, as plain values. Pure."""
    rows = [
        {**trial(t, found.objective), "state": t.state, "seconds": t.seconds, "reason": t.notes.get("reason", "")}
        for t in found.ended
    ]
    return {
        "study": found.study,
        "sweep": found.name,
        "experiment": found.experiment,
        "objective": dict(found.objective),
        "asked": found.asked,
        "counts": found.counts,
        "best": [trial(t, found.objective) for t in found.best],
        "trials": rows,
        "living": list(found.living),
        "coordinator": found.coordinator,
        "ended": found.why,
        "rate": found.rate,
        "left": found.left,
    }


def table(found: Shown) -> str:
    """Every ended trial as CSV: number, state, parameters, metrics, seconds, run, reason. Pure."""
    names = list(dict.fromkeys(n for t in found.ended for n in t.params))
    others = list(dict.fromkeys(n for t in found.ended for n in t.notes.get("metrics", {})))
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    heads = [*(f"params.{n}" for n in names), *found.objective, *others]
    rows.writerow(["number", "state", *heads, "seconds", "run", "reason"])
    for t in found.ended:
        values = dict(zip(found.objective, t.values, strict=False))
        more = t.notes.get("metrics", {})
        cells = [*(t.params.get(n, "") for n in names), *(values.get(n, "") for n in found.objective)]
        cells += [more.get(n, "") for n in others]
        run = t.notes.get("reused") or t.notes.get("run", "")
        rows.writerow([t.number, t.state, *cells, t.seconds, run, t.notes.get("reason", "")])
    return out.getvalue()


def importance(lab: Lab, name: str, how: str = "ped_anova") -> dict[str, dict[str, dict[str, float]]]:
    """`importance` and `correlation`: metric → parameter → figure."""
    from lab.adapters import optuna_results

    folder = study(lab, name)
    found = optuna_results.load(folder)
    metrics = list(folder.read("step.json")["objective"])
    done, _ = optuna_results.trials(found)
    return {
        "importance": optuna_results.importance(found, metrics, how),
        "correlation": optuna_results.correlation(done, metrics),
    }


def plot(lab: Lab, name: str, out: Path | None = None) -> list[Path]:
    """One HTML page with every picture, and each picture as PNG beside it where matplotlib is installed."""
    from lab.adapters import sweep_png
    from lab.core.problem import Problems
    from lab.runs import sweep_plot

    found = show(lab, name)
    try:
        weights = importance(lab, name)["importance"]
    except Problems:
        weights = {}
    folder = out or lab.state / "sweeps" / "plots" / found.study
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "sweep.html"
    page.write_text(sweep_plot.page(found.study, found.objective, found.ended, weights), encoding="utf-8")
    return [page, *sweep_png.draw(folder, found.objective, found.ended, weights)]


def stop(lab: Lab, name: str, wait: float = 10.0) -> tuple[str, int]:
    """The coordinator and every living trial are asked to end; returns who coordinated and how many trials ended."""
    import contextlib
    import os
    import re
    import signal

    from lab.runs.run import Handle

    folder = study(lab, name)
    holder = sweep_folder.coordinator(folder.path)
    if m := re.match(r"process (\d+) ", holder):
        with contextlib.suppress(OSError):
            os.kill(int(m[1]), signal.SIGINT)
        until = time.monotonic() + wait
        while sweep_folder.coordinator(folder.path) and time.monotonic() < until:
            time.sleep(0.05)
    found = show(lab, name)
    ended = [Handle(RunFolder(lab.state / "runs" / str(one["run"]))) for one in found.living]
    for handle in ended:
        handle.stop()
    for handle in ended:
        handle.wait(wait)
    return holder, len(ended)
