"""reproduce: a run is made again from exactly what made it, and its metrics are compared."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters import experiments
from lab.adapters.secrets import withhold
from lab.adapters.supervisor import wait
from lab.app.lab import Lab
from lab.app.reading import entering
from lab.app.run import folder as find
from lab.core.problem import Problems, problem
from lab.core.secret import Secret
from lab.runs import provenance
from lab.runs.folder import RunFolder, new_id
from lab.runs.listing import listed
from lab.runs.readers import given
from lab.runs.reproduce import Metric, judge
from lab.runs.run import RunSpec, launch


@dataclass(frozen=True)
class Reproduced:
    """A run and its rerun, metric by metric."""

    run: str
    again: str
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()
    """What could not be made the same, in a line each."""

    @property
    def equal(self) -> bool:
        """Whether every metric agrees within its tolerance."""
        return all(m.equal for m in self.metrics)


def reproduce(lab: Lab, name: str, *, keep: bool = False) -> Reproduced:
    """The run is made again in a clean checkout of its commit and patch; raises Problems where its inputs differ."""
    return again(lab, find(lab, name), keep=keep)


def reproduce_all(lab: Lab, sample: int = 0, experiment: str = "") -> list[Reproduced | Problems]:
    """Finished runs, all or a random sample of them (the same sample each time), reproduced one after the other."""
    found = [one.folder for one in listed(lab.state, experiment, ["state=finished"], "started")]
    found = [f for f in found if not f.spec.get("own") and not f.spec.get("tags", {}).get("lab.reproduces")]
    if sample and sample < len(found):
        found = sorted(random.Random(len(found)).sample(found, sample), key=lambda f: f.id)
    out: list[Reproduced | Problems] = []
    for one in found:
        try:
            out.append(again(lab, one))
        except Problems as e:
            out.append(e)
    return out


def again(lab: Lab, run: RunFolder, *, keep: bool = False) -> Reproduced:
    """See `reproduce`."""
    spec, inputs, result = run.spec, run.read("inputs.json"), run.result
    if result.get("state") != "finished":
        raise problem(f"{run.id} cannot be reproduced", why=f"it is {run.state()}", do="only a finished run can")
    if spec.get("own"):
        raise problem(f"{run.id} cannot be reproduced", why="it was begun by a script, not by `lab run`")
    unlike(run, inputs)
    withhold(Secret(str(r)) for r in (inputs.get("secrets") or {}).values())
    new = lab.state / "runs" / new_id(str(spec["name"]))
    work = lab.state / "reproduce" / new.name
    notes: list[str] = []
    try:
        tree = _tree(lab, run, inputs, work, notes)
        fresh = relocated(spec, run.path, new, lab.root, tree)
        if inputs.get("code_source"):
            code = experiments.clone({**inputs["code_source"], "ref": inputs["code_source"]["commit"]}, new)
            fresh = _moved(fresh, {str(run / "code"): str(code)})
        # It is compared, and nothing else: the experiment, its record and the registry stay with the run they have.
        fresh["after"] = []
        fresh["tags"] = {**(spec.get("tags") or {}), "lab.reproduces": run.id}
        fresh["env"]["MLFLOW_RUN_ID"] = _mlflow(new.name)
        stage: Any = lab.work(f"experiment.{spec['name']}")
        secrets = {n: stage.secret(str(r)) for n, r in (inputs.get("secrets") or {}).items()}
        notes += unequal(inputs, fresh)
        known = {**inputs, "reproduces": run.id}
        handle = launch(RunSpec.of(fresh, folder=new), known, secrets, enter=entering(lab, given(inputs)))
        told = wait(handle, stage)
    finally:
        if not keep:
            _clear(lab.root, work)
    if told["state"] != "finished":
        from lab.adapters.supervisor import failed

        raise failed(str(spec["name"]), handle.folder, told)
    metrics = judge(result.get("metrics") or {}, told.get("metrics") or {}, inputs.get("tolerance") or {})
    found = Reproduced(run.id, handle.id, metrics, tuple(notes))
    handle.folder.write("reproduces.json", {"run": run.id, "equal": found.equal, "notes": notes})
    return found


def unlike(run: RunFolder, inputs: Mapping[str, Any]) -> None:
    """Every model and dataset is, byte for byte, what the run was given; raises Problems with both hashes."""
    found = []
    for kind in ("models", "datasets"):
        for name, one in (inputs.get(kind) or {}).items():
            known = one.get("content") or {}
            places = one.get("levels") or {"": one["path"]}
            now = {
                "/".join(filter(None, (level, n))): h
                for level, place in places.items()
                for n, h in experiments.content(Path(str(place)), known).items()
            }
            for file in sorted({*known, *now}):
                if known.get(file) != now.get(file):
                    what = one.get("address") or name
                    was, is_ = known.get(file, "absent"), now.get(file, "absent")
                    found.append(
                        problem(
                            f"{what} is not what {run.id} was given",
                            why=f"{file or Path(str(one['path'])).name}: {is_} now, {was} then",
                            do="restore it, then reproduce",
                        )
                    )
    if found:
        raise Problems(*(p for e in found for p in e.problems))


def unequal(inputs: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """What of the machine and its Python is not as it was, a line each: where a metric differs, this is why. Reads.

    Code, models and datasets cannot differ: they were checked out and verified.
    """
    now = provenance.here(Path("/"))
    python = str(spec.get("python") or "")
    then = str((inputs.get("interpreter") or {}).get("packages", ""))
    found = [
        f"{n} is {now[n]} now, and was {inputs[n]}" for n in ("python", "platform") if inputs.get(n, now[n]) != now[n]
    ]
    if then and provenance.interpreter(python)["packages"] != then:
        found.append(f"the packages beside {python} are not those of then")
    return found


def relocated(spec: Mapping[str, Any], old: Path, new: Path, root: Path, tree: Path) -> dict[str, Any]:
    """The spec with the run's folder and the repository's replaced; what lies under state/ stays where it is. Pure."""
    marker = "\0state\0"
    text = json.dumps(dict(spec)).replace(str(old), str(new))
    text = text.replace(f"{root}/state", marker).replace(str(root), str(tree)).replace(marker, f"{root}/state")
    found: dict[str, Any] = json.loads(text)
    return found


def _moved(spec: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    text = json.dumps(dict(spec))
    for old, new in places.items():
        text = text.replace(old, new)
    found: dict[str, Any] = json.loads(text)
    return found


def _tree(lab: Lab, run: RunFolder, inputs: Mapping[str, Any], work: Path, notes: list[str]) -> Path:
    """A clean checkout of the recorded commit with the recorded patch; the lab itself where there is no repository."""
    git = inputs.get("git") or {}
    if git.get("commit", "none") == "none":
        context = lab.context(next(iter(lab.declarations)))
        known = (inputs.get("code") or {}).items()
        changed = [p for p, sha in known if sha and context.content(context.path(p)) != sha]
        if changed:
            raise problem(
                f"the code of {run.id} is not there any more",
                why=f"{', '.join(changed)} changed, and no git repository kept it",
                do="keep the lab in git: then every run can be made again",
            )
        notes.append("no git repository: the lab's own folder was used, unchanged where its code is hashed")
        return lab.root
    top = Path(str(git["top"])) if Path(str(git.get("top", ""))).exists() else lab.root
    work.parent.mkdir(parents=True, exist_ok=True)
    _git(top, f"the commit {git['commit'][:12]} of {run.id} cannot be checked out", "worktree", "add", "--detach",
         "--quiet", str(work), str(git["commit"]))  # fmt: skip
    patch = run / "patch.diff"
    if patch.exists() and patch.stat().st_size:
        _git(work, f"the patch of {run.id} does not apply", "apply", "--binary", "--whitespace=nowarn", str(patch))
    return work / lab.root.resolve().relative_to(top.resolve())


def _clear(root: Path, work: Path) -> None:
    if work.exists():
        subprocess.run(["git", "worktree", "remove", "--force", str(work)], cwd=root, capture_output=True)
        shutil.rmtree(work, ignore_errors=True)


def _git(where: Path, summary: str, *args: str) -> None:
    done = subprocess.run(["git", *args], cwd=where, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["git said nothing"])[-1]
        raise problem(summary, why=why, do="fetch the commit, or restore the repository")


def _mlflow(name: str) -> str:
    from lab.adapters.mlflow_local import run_id

    return run_id(name)
