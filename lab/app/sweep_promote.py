"""Promote: the best parameters of a sweep go into the experiment's YAML, as the smallest change that says so."""

from __future__ import annotations

import difflib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.app.lab import Lab
from lab.app.sweep_results import Shown, show
from lab.core.problem import problem
from lab.core.space import nested
from lab.declare.yaml_edit import edit
from lab.runs.folder import put


@dataclass(frozen=True)
class Promoted:
    """A promotion: the file it changes, the change, and the evidence for it."""

    file: str
    diff: str
    message: str
    branch: str
    """The branch it was committed on; empty where it is in the working tree."""


def promote(lab: Lab, name: str, *, number: int | None = None, branch: str = "") -> Promoted:
    """The parameters of the best trial (or of `number`) are the experiment's; raises Problems where they cannot be."""
    found = show(lab, name)
    chosen = _chosen(found, number)
    address = f"experiment.{found.experiment}"
    declaration: Any = lab.declaration(address)
    file = f"conf/experiment/{found.experiment}.yaml"
    path = lab.root / file
    if not path.is_file():
        place, line = lab.place(address)
        raise problem(f"{address} has no file of its own", file=place, line=line, do=f"move it to {file}, then promote")
    before = path.read_text(encoding="utf-8")
    params = dict(chosen.params)
    after = edit(before, {f"params.{k}": v for k, v in params.items()}, file)
    _sound(after, nested(declaration.params, params), file)
    message = _message(found, chosen, declaration.params)
    diff = "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{file}", f"b/{file}", n=2))
    if diff and branch:
        _commit(lab.root, file, after, message, branch)
    elif diff:
        put(path, after)
    return Promoted(file, diff, message, branch if diff else "")


def _chosen(found: Shown, number: int | None) -> Any:
    if number is not None:
        trial = next((t for t in found.ended if t.number == number and t.state == "complete"), None)
        if trial is None:
            raise problem(f"{found.study} has no complete trial {number}", do=f"see `lab sweep show {found.name}`")
        return trial
    if not found.best:
        raise problem(f"{found.study} has no complete trial that keeps its constraints", do="run it first")
    if len(found.best) > 1:
        numbers = ", ".join(str(t.number) for t in found.best)
        raise problem(
            f"{found.study} has a front of {len(found.best)} trials, not one best",
            why=f"none of {numbers} is better in every metric",
            do="choose one: `lab sweep promote NAME --trial N`",
        )
    return found.best[0]


def _sound(text: str, wanted: Mapping[str, Any], file: str) -> None:
    """The edited text says what was meant, read as every other file of the lab is."""
    from lab.declare.read import read

    value = read(text.encode(), file).value
    params = value.get("params") if isinstance(value, dict) else None
    if not isinstance(params, dict) or any(params.get(k) != v for k, v in wanted.items() if k in params):
        raise problem(
            f"{file} cannot be edited safely",
            why="its parameters come from an anchor or an interpolation",
            do="edit it by hand",
        )


def _message(found: Shown, chosen: Any, before: Mapping[str, Any]) -> str:
    values = ", ".join(f"{n} {v:.6g}" for n, v in zip(found.objective, chosen.values, strict=True))
    goals = ", ".join(f"{goal} {metric}" for metric, goal in found.objective.items())
    counts = ", ".join(f"{n} {s}" for s, n in found.counts.items())
    run = chosen.notes.get("reused") or chosen.notes.get("run", "")
    lines = [f"Promote trial {chosen.number} of sweep {found.name} to experiment {found.experiment}", ""]
    lines.append(f"{values} ({goals}), the best of {counts} in {found.study}.")
    flat = _flat(before)
    lines += [f"  {k}: {flat.get(k, '–')} → {v}" for k, v in chosen.params.items()]
    lines.append(f"Run: {run}")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def _commit(root: Path, file: str, text: str, message: str, branch: str) -> None:
    """A commit on a new branch from HEAD that changes only this file; neither index nor working tree is touched."""

    def git(*args: str, data: str | None = None, **env: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=root, input=data, capture_output=True, text=True, env={**os.environ, **env}
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["git said nothing"])[-1]
            raise problem(f"git could not commit on {branch}", why=why, do="promote into the working tree instead")
        return done.stdout.strip()

    git("check-ref-format", f"refs/heads/{branch}")
    prefix = git("rev-parse", "--show-prefix")
    index = Path(git("rev-parse", "--absolute-git-dir")) / f"lab-index-{os.getpid()}"
    own = {"GIT_INDEX_FILE": str(index)}
    try:
        git("read-tree", "HEAD", **own)
        blob = git("hash-object", "-w", "--stdin", data=text)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{file}", **own)
        tree = git("write-tree", **own)
        commit = git("commit-tree", tree, "-p", "HEAD", data=message)
        git("update-ref", f"refs/heads/{branch}", commit, "0" * 40)
    finally:
        index.unlink(missing_ok=True)
