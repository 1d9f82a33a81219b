"""Summary: what a sweep has found so far, as plain values."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.core.facts import Facts
from lab.core.steps_sweeps import Search
from lab.runs.sweep_ports import Ended


def summary(step: Search, trials: Iterable[Ended], over: str, began: float, state: str = "running") -> dict[str, Any]:
    """Counts, the best trial (or the Pareto front), why it ended; `state`: running, stopped, finished. Pure."""
    found = sorted(trials, key=lambda t: t.number)
    counts = {s: sum(1 for t in found if t.state == s) for s in ("complete", "pruned", "failed", "infeasible")}
    front = best(found, step.objective)
    spent = [t.seconds for t in found if t.seconds]
    return {
        "sweep": step.name,
        "study": step.study,
        "digest": step.digest,
        "experiment": step.experiment,
        "state": state,
        "ended": over,
        "trials": step.trials,
        "objective": dict(step.objective),
        **counts,
        "best": trial(front[0], step.objective) if len(step.objective) == 1 and front else None,
        "front": [trial(t, step.objective) for t in front] if len(step.objective) > 1 else [],
        "trial_seconds": sum(spent) / len(spent) if spent else None,
        "progress": progress(found, step.objective) if len(step.objective) == 1 else [],
        "began": began,
        "at": time.time(),
    }


def trial(t: Ended, objective: Mapping[str, str]) -> Facts:
    """One trial as plain values. Pure."""
    run = t.notes.get("reused") or t.notes.get("run") or ""
    values = dict(zip(objective, t.values, strict=False))
    return {"number": t.number, "params": dict(t.params), "values": values, "run": run}


def best(trials: Sequence[Ended], objective: Mapping[str, str]) -> list[Ended]:
    """The feasible trials that no other betters in every metric: one for one metric (the first of equals). Pure."""
    signs = [-1.0 if goal == "max" else 1.0 for goal in objective.values()]
    done = [t for t in trials if t.state == "complete" and t.feasible and t.values]
    scored = [([s * v for s, v in zip(signs, t.values, strict=True)], t) for t in done]
    if len(signs) == 1:
        return [min(scored, key=lambda p: (p[0][0], p[1].number))[1]] if scored else []
    return [t for s, t in scored if not any(_betters(o, s) for o, _ in scored)]


def progress(trials: Sequence[Ended], objective: Mapping[str, str]) -> list[tuple[int, float, float]]:
    """Each improvement: how many trials had ended, when, and the best value from then on. Pure."""
    sign = -1.0 if next(iter(objective.values())) == "max" else 1.0
    out: list[tuple[int, float, float]] = []
    for i, t in enumerate(sorted(trials, key=lambda t: t.ended)):
        if t.state == "complete" and t.feasible and t.values and (not out or sign * t.values[0] < sign * out[-1][2]):
            out.append((i, t.ended, t.values[0]))
    return out


def _betters(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))
