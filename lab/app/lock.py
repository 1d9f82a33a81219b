"""lock: what declarations stand for is resolved once and committed to git."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.adapters.files import put
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.facts import Difference, Facts, differences
from lab.core.problem import Problem, Problems
from lab.plan.select import matching


@dataclass(frozen=True, slots=True)
class Locked:
    """One resource's lock: what moved in it, or why it could not be made."""

    address: Address
    moved: tuple[Difference, ...] = ()
    fresh: bool = False
    said: str = ""
    problems: tuple[Problem, ...] = ()


def lock(lab: Lab, only: Sequence[str] = ()) -> list[Locked]:
    """Every chosen resource that needs a lock has one under `conf/lock/`; what could not be resolved says why."""
    chosen = matching(only, list(lab.declarations)) if only else set(lab.declarations)
    todo = [
        (a, step)
        for a in lab.declarations
        if a in chosen and (step := lab.declarations[a].resolve(lab.context(a))) is not None
    ]
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda t: _one(lab, *t), todo))


def _one(lab: Lab, address: Address, step: object) -> Locked:
    before = lab.context(address).lock
    try:
        found = lab.perform(step, address)  # type: ignore[arg-type]
    except Problems as e:
        return Locked(address, problems=e.problems)
    except OSError as e:
        return Locked(address, problems=(Problem(f"{address} cannot be locked", why=e.strerror or str(e)),))
    said = str(found.get("said", ""))
    body = {k: v for k, v in found.items() if k != "said"}
    if not body:
        return Locked(address, said=said)
    if before is None or dict(before) != body:
        write(lab, address, body)
    return Locked(address, differences(before or {}, body) if before is not None else (), before is None, said)


def write(lab: Lab, address: Address, body: Facts) -> None:
    """A lock file holds `body`, readable and stable in a diff."""
    path = Path(lab.locks[0], address.kind, f"{address.name}.yaml")
    text = "# Written by `lab lock`. Commit it; change the declaration, not this.\n"
    text += yaml.safe_dump(dict(body), sort_keys=True, allow_unicode=True, width=120)
    put(path, text.encode())
