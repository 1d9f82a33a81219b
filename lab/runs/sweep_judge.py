"""Judge: what a trial's end is worth to its study: complete, pruned or failed, with what values and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.core.rules import Rule
from lab.core.steps_sweeps import Search
from lab.runs.folder import RunFolder

CURVE = 100
"""How many points of a trial that no pruner watches are kept in the study; all are in its folder."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a trial counts."""

    state: str
    """`complete`, `pruned` or `failed`."""
    values: tuple[float, ...] = ()
    reason: str = ""
    others: Mapping[str, float] = field(default_factory=dict)
    """Finite metrics besides the objectives."""
    excess: Mapping[str, float] = field(default_factory=dict)
    """How far it breaks each constraint; at most 0 where it holds."""

    @property
    def feasible(self) -> bool:
        """Whether every constraint holds."""
        return all(v <= 0 for v in self.excess.values())


def judge(
    step: Search, rules: Sequence[Rule], folder: RunFolder, result: Mapping[str, Any], params: Mapping[str, Any]
) -> Verdict:
    """The verdict on a run that ended with `result`; `params` are all its parameters by dotted names. Reads."""
    metrics = dict(result.get("metrics") or {})
    if result.get("state") != "finished":
        return Verdict("failed", reason=f"{result.get('state')}: {result.get('reason') or 'no reason given'}")
    values, wrong = _values(step, folder, metrics)
    if wrong:
        return Verdict("failed", reason=wrong)
    others = {n: v for n, v in metrics.items() if n not in step.objective and math.isfinite(v)}
    excess = _excess(step, rules, {**metrics, **params})
    if isinstance(excess, str):
        return Verdict("failed", reason=excess, others=others)
    return Verdict("complete", tuple(values), others=others, excess=excess)


def thin(points: Mapping[int, float], most: int = CURVE) -> dict[int, float]:
    """At most so many points of a curve, evenly, the first and the last among them; none of a single point. Pure."""
    steps = sorted(points)
    if len(steps) < 2:
        return {}
    if len(steps) > most:
        steps = [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]
    return {s: points[s] for s in steps}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted names. Pure."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _values(step: Search, folder: RunFolder, metrics: Mapping[str, float]) -> tuple[list[float], str]:
    values = []
    for name, goal in step.objective.items():
        value = metrics.get(name)
        if step.judge == "best":
            finite = [v[name] for _, _, v in folder.metrics() if name in v and math.isfinite(v[name])]
            value = (max if goal == "max" else min)(finite) if finite else value
        if value is None:
            known = ", ".join(sorted(metrics)) or "nothing"
            return [], f"it never logged `{name}`; it logged {known}"
        if not math.isfinite(value):
            return [], f"`{name}` is {value} in the end"
        values.append(float(value))
    return values, ""


def _excess(step: Search, rules: Sequence[Rule], values: Mapping[str, Any]) -> dict[str, float] | str:
    """Each constraint's excess; a text where one cannot be told."""
    out: dict[str, float] = {}
    for rule in rules:
        try:
            out[rule.text] = rule.excess(values)
        except KeyError as e:
            if e.args[0] not in step.space:
                return f"the constraint `{rule.text}` needs {e.args[0]}, which was never logged"
        except (ArithmeticError, ValueError, TypeError) as e:
            return f"the constraint `{rule.text}` cannot be computed: {e}"
    return out
