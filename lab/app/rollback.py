"""rollback: the lab as it was declared for an earlier generation."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.adapters import git
from lab.app.apply import Applied, Approve, Started, apply
from lab.app.lab import Lab
from lab.core.problem import problem
from lab.ledger import generations
from lab.ledger.generations import Generation


def rollback(
    lab: Lab,
    number: int,
    *,
    approve: Approve = lambda plan: True,
    started: Started = lambda walk: None,
) -> Applied | None:
    """The declarations of generation `number` are applied: its commit, its uncommitted patch, profile and overrides.

    The working tree is left as it is, so the next plan shows the way forward again.
    """
    then = generations.generation(lab.ledger, number)
    if then is None:
        raise problem(f"there is no generation {number}", do="see `lab history`")
    with _as_then(lab, then) as source:
        old = lab.again(_overrides(then), source=source)
        return apply(old, verb="rollback", approve=approve, started=started, allow_destroy=True)


def _overrides(then: Generation) -> tuple[str, ...]:
    chosen = any(o.startswith("profile=") for o in then.origin.overrides)
    profile = (f"profile={then.origin.profile}",) if then.origin.profile and not chosen else ()
    return (*profile, *then.origin.overrides) if then.origin.revision else profile


@contextmanager
def _as_then(lab: Lab, then: Generation) -> Iterator[Path]:
    if then.origin.revision:
        with git.exported(lab.root, then.origin.revision, then.origin.patch) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        conf = Path(folder) / "conf"
        for name in ("host", "profile", "stage", "lock"):
            if (lab.conf / name).is_dir():
                shutil.copytree(lab.conf / name, conf / name)
        conf.mkdir(exist_ok=True)
        shutil.copyfile(lab.conf / "lab.yaml", conf / "lab.yaml")
        for beside in lab.root.iterdir():  # without git there is one version of the code: this one
            if beside.name not in (conf.name, "state"):
                (Path(folder) / beside.name).symlink_to(beside)
        for address, block in generations.declared_at(lab.ledger, then.number).items():
            path = conf / address.kind / f"{address.name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(block).replace("${", "\\\\${"))
        yield Path(folder)
