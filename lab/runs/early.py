"""Early: when a run has learned enough, by the metric it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.runs.folder import RunFolder


def reached(folder: RunFolder, rule: Mapping[str, Any]) -> str:
    """Why the run may stop now; empty while it should go on. Reads.

    `rule`: `metric`; `goal: min | max`; `patience`: points without an improvement of at least `delta`; `target`: a
    value that is good enough.
    """
    name, sign = str(rule["metric"]), -1.0 if rule.get("goal", "min") == "max" else 1.0
    values = [v[name] for _, _, v in folder.metrics() if name in v]
    if not values:
        return ""
    target = rule.get("target")
    if target is not None and min(sign * v for v in values) <= sign * float(target):
        return f"{name} reached {target:g}"
    patience = rule.get("patience")
    if patience:
        best, since = float("inf"), 0
        for value in values:
            if sign * value < best - float(rule.get("delta", 0)):
                best, since = sign * value, 0
            else:
                since += 1
        if since >= int(patience):
            return f"{name} did not improve for {since} points"
    return ""
