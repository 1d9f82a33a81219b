"""Listing: runs in a line each, filtered and sorted. Reads run folders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.problem import did_you_mean, problem
from lab.runs.folder import ENDED, RunFolder
from lab.runs.run import interrupted, runs

_WHERE = re.compile(r"^([\w./-]+)\s*(<=|>=|!=|=|<|>)\s*(.+)$")


@dataclass(frozen=True)
class Line:
    """One run."""

    id: str
    experiment: str
    state: str
    started: float
    seconds: float
    metrics: dict[str, float]
    params: dict[str, Any]
    tags: dict[str, str]
    folder: RunFolder

    def value(self, key: str) -> Any:
        """A field, a metric, a parameter (by dotted name) or a tag; None where there is none of that name."""
        if key in ("id", "experiment", "state", "started", "seconds"):
            return getattr(self, key)
        if key in self.metrics:
            return self.metrics[key]
        at: Any = self.params
        for part in key.removeprefix("params.").split("."):
            if not isinstance(at, dict) or part not in at:
                return self.tags.get(key)
            at = at[part]
        return at

    def to_json(self) -> dict[str, Any]:
        """As `lab runs --json` prints it."""
        names = ("id", "experiment", "state", "started", "seconds", "metrics", "params", "tags")
        return {n: getattr(self, n) for n in names} | {"folder": str(self.folder.path)}


def line(folder: RunFolder) -> Line:
    """One run as it stands; a run that nobody saw end is given its truthful end."""
    state = folder.state()
    if state == "interrupted" and not folder.result and folder.spec:
        interrupted(folder)
        state = folder.state()
    spec, result = folder.spec, folder.result
    process = {} if result else folder.read("process.json")
    import time

    began = float(result.get("started") or process.get("started") or spec.get("at") or spec.get("started") or 0)
    seconds = float(result.get("seconds") or 0) if state in ENDED else max(0.0, time.time() - began)
    metrics = result["metrics"] if "metrics" in result else folder.last()
    tags = {str(k): str(v) for k, v in (spec.get("tags") or {}).items()}
    return Line(
        folder.id, str(spec.get("name", "")), state, began, seconds, metrics, spec.get("params") or {}, tags, folder
    )


def listed(
    state: Path, experiment: str = "", where: Sequence[str] = (), sort: str = "-started", limit: int = 0
) -> list[Line]:
    """The runs under `state`, newest first unless `sort` names another key (`-key` is descending); raises Problems.

    `where`: `state=failed`, `lr>0.01`, `loss<=2`.
    """
    wanted = [_condition(w) for w in where]
    found = [line(f) for f in runs(state) if f.spec and (not experiment or f.spec.get("name") == experiment)]
    found = [one for one in found if all(_holds(one.value(k), op, v) for k, op, v in wanted)]
    key = sort.removeprefix("-")
    present = [one for one in found if one.value(key) is not None]
    absent = [one for one in found if one.value(key) is None]
    present.sort(key=lambda one: _order(one.value(key)), reverse=sort.startswith("-"))
    found = [*present, *absent]
    return found[:limit] if limit else found


def find(state: Path, name: str) -> RunFolder:
    """The run of that name; a unique beginning or the newest of an experiment will do. Raises Problems."""
    known = [f for f in runs(state) if f.spec]
    exact = [f for f in known if f.id == name]
    if exact:
        return exact[0]
    of = [f for f in known if f.spec.get("name") == name.removeprefix("experiment.")]
    if of:
        return max(of, key=lambda f: float(f.spec.get("at") or f.spec.get("started") or 0))
    begins = [f for f in known if f.id.startswith(name) or f.id.endswith(name)]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise problem(f"`{name}` stands for {len(begins)} runs", why=", ".join(f.id for f in begins[:5]), do="say more")
    raise problem(f"there is no run `{name}`{did_you_mean(name, [f.id for f in known])}", do="see `lab runs`")


def _condition(text: str) -> tuple[str, str, str]:
    m = _WHERE.match(text.strip())
    if not m:
        raise problem(f"`{text}` is no condition", do="write NAME=VALUE, NAME!=VALUE, NAME<NUMBER or NAME>NUMBER")
    return m[1], m[2], m[3]


def _holds(value: Any, op: str, text: str) -> bool:
    if value is None:
        return op == "!="
    try:
        a, b = float(value), float(text)
    except (TypeError, ValueError):
        same = str(value).lower() == text.strip("'\"").lower()
        return same if op == "=" else not same if op == "!=" else False
    return {"=": a == b, "!=": a != b, "<": a < b, ">": a > b, "<=": a <= b, ">=": a >= b}[op]


def _order(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, (int, float)) else (1, 0.0, str(value))


def series(folder: RunFolder, names: Iterable[str] | None = None) -> dict[str, list[tuple[float, float]]]:
    """Each metric's values over its steps, in order."""
    found: dict[str, list[tuple[float, float]]] = {}
    wanted = None if names is None else set(names)
    for step, _, values in folder.metrics():
        for name, value in values.items():
            if wanted is None or name in wanted:
                found.setdefault(name, []).append((float(step), value))
    return {n: sorted(p, key=lambda q: q[0]) for n, p in sorted(found.items())}
