"""run: an experiment is run now, with overrides, whether or not anything changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lab.adapters import experiments
from lab.adapters.supervisor import afterwards, wait
from lab.app.activity import projects
from lab.app.guest import note
from lab.app.lab import Lab
from lab.app.reading import entering
from lab.core.address import Address
from lab.core.problem import did_you_mean, problem
from lab.core.steps_runs import Execute
from lab.kinds import shipped
from lab.runs.folder import RunFolder
from lab.runs.readers import given
from lab.runs.run import Handle

_KEY = re.compile(r"^([+~]*)([\w./@-]+)(=.*)?$", re.DOTALL)


def run(
    lab: Lab,
    name: str,
    overrides: Sequence[str] = (),
    *,
    detach: bool = False,
    tags: Sequence[str] = (),
    priority: int | None = None,
) -> Handle:
    """The experiment runs; without `detach` it has ended when this returns. Raises Problems where it cannot start.

    An override without a kind is a parameter of the experiment, or one of its fields: `lr=0.1`, `seed=7`.
    """
    address = named(lab, name)
    opened = Lab(lab.root, (*lab.overrides, *(translate(lab, address, o) for o in overrides)), lab.tell)
    handle = begin(opened, address, tags=tags, changed=bool(overrides), priority=priority)
    if not detach:
        stage: Any = opened.work(address)
        wait(handle, stage)
        afterwards(handle.folder)
        from lab.app.calibrate import learn_run

        learn_run(opened, handle.folder)
    return handle


def begin(
    lab: Lab, address: Address, *, tags: Sequence[str] = (), changed: bool = False, priority: int | None = None
) -> Handle:
    """A new run of a declared experiment is started, under its own supervisor."""
    step = step_of(lab, address)
    if priority is not None:
        step = replace(step, spec={**step.spec, "priority": priority})
    if tags:
        more = {t.partition("=")[0]: t.partition("=")[2] or "true" for t in tags}
        step = replace(step, spec={**step.spec, "tags": {**step.spec["tags"], **more}})
    stage: Any = lab.work(address)
    handle = experiments.begin(step, stage, adopt=not changed, enter=entering(lab, given(step.spec)))
    note(lab, f"lab run {address.name}", run=handle.id, projects=projects(lab, [address]))
    return handle


def step_of(lab: Lab, address: Address) -> Execute:
    """The step that runs a declared experiment."""
    declaration: Any = lab.declaration(address)
    found = declaration.execute(lab.context(address), lab.declared.digests[address])
    assert isinstance(found, Execute)
    return found


def named(lab: Lab, name: str) -> Address:
    """The experiment of that name or address; a Problem with the nearest where there is none."""
    known = [a for a in lab.declarations if a.kind == "experiment"]
    address = Address(name if name.startswith("experiment.") else f"experiment.{name}")
    if address not in known:
        names = [a.name for a in known]
        raise problem(
            f"`{name}` is no experiment{did_you_mean(name, names)}",
            why=f"declared are {', '.join(names[:8])}" if names else "none is declared",
            do="write conf/experiment/NAME.yaml",
        )
    return address


def translate(lab: Lab, address: Address, override: str) -> str:
    """An override as it is written for the whole lab: a bare key belongs to the experiment."""
    m = _KEY.match(override)
    if not m:
        return override
    sign, key, value = m[1], m[2], m[3] or ""
    first = key.partition(".")[0].partition("@")[0]
    declaration: Any = lab.declaration(address)
    if first not in declaration.params and first in (
        *shipped(),
        "lab",
        "host",
        "profile",
        "resources",
        "moved",
        "apply",
    ):
        return override
    fields = {f.alias or n for n, f in type(declaration).model_fields.items()}
    inside = key if first in fields and first not in declaration.params else f"params.{key}"
    return f"{sign}{address}.{inside}{value}"


def folder(lab: Lab, name: str) -> RunFolder:
    """The run of that name; see `lab.runs.listing.find`."""
    from lab.runs.listing import find

    return find(lab.state, name)
