"""Checkpoints: which of a run's checkpoints stay, by their step: the last few, every so many, and the best."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.runs.folder import RunFolder

_STEP = re.compile(r"(\d+)(?!.*\d)")


def step_of(path: Path) -> int | None:
    """The last number in a checkpoint's name: `model-000120.safetensors` is step 120; None where it has none. Pure."""
    found = _STEP.search(path.name.partition(".")[0])
    return int(found[1]) if found else None


def kept(steps: Iterable[int], rule: Mapping[str, Any], values: Mapping[int, float] | None = None) -> set[int]:
    """The steps that stay; all where the rule says nothing. `values`: the best's metric by step. Pure."""
    known = sorted(set(steps))
    if not rule or not known:
        return set(known)
    last = int(rule.get("last", 1))
    stay = set(known[-last:]) if last else set()
    if every := rule.get("every"):
        stay |= {s for s in known if s % int(every) == 0}
    best = rule.get("best")
    judged = {s: v for s, v in (values or {}).items() if s in known and v == v}
    if best and judged:
        choose = max if best.get("goal", "min") == "max" else min
        stay.add(choose(judged, key=lambda s: (judged[s], s)))
    return stay


def prune(folder: RunFolder) -> list[str]:
    """What the run's rule does not keep is gone; the names of what went. A living run's newest is never touched."""
    rule = folder.spec.get("keep") or {}
    if not rule:
        return []
    paths = [(step, p) for p in sorted((folder / "checkpoints").iterdir()) if (step := step_of(p)) is not None]
    metric = (rule.get("best") or {}).get("metric")
    values = {step: v[metric] for step, _, v in folder.metrics() if metric in v} if metric else {}
    stay = kept((s for s, _ in paths), rule, values)
    gone = []
    for step, path in paths:
        if step not in stay and step != max(s for s, _ in paths):
            gone.append(path.name)
            with contextlib.suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
    return gone
