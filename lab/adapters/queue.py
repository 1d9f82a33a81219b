"""Queue: how a run enters the queue of its host: what it asks of it, and what its quotas say."""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.adapters import admission, pool
from lab.core import quotas
from lab.core.problem import problem
from lab.core.queueing import Asks
from lab.core.quotas import Quota
from lab.runs import cards
from lab.runs.folder import RunFolder
from lab.runs.run import RunSpec, runs

MORE = 1.25
"""A run is expected to take so many times what its last one took."""


def placed(spec: RunSpec, last: Mapping[str, Any]) -> RunSpec:
    """The spec with whose it is, how long it should take by its last run's result, and the quotas of its accounts."""
    owner = owner_here()
    known = [float(last["seconds"]) * MORE] if last.get("seconds") else []
    known += [spec.timeout * (1 + spec.retries)] if spec.timeout else []
    limits = quotas.chosen({n: Quota(**q) for n, q in spec.quotas.items()}, quotas.accounts(owner, spec.project))
    lasts = min(known) if known else None
    return replace(spec, owner=owner, lasts=lasts, quotas={a: q.model_dump() for a, q in limits.items()})


def owner_here() -> str:
    """The user that runs are charged to: whose process this is."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def submit(state: Path, spec: RunSpec, *, here: bool = True) -> None:
    """Raises a Problem, with the numbers, where a quota lets no such run begin, or this host could never hold it.

    Not `here`: it will run on other hosts.
    """
    if spec.cards and here:
        admission.possible(f"experiment.{spec.name}", 0, 0, spec.cards, cards.pool())
    limits = {a: Quota(**q) for a, q in spec.quotas.items()}
    asked = spec.cards * (spec.lasts or 0) / 3600
    used = admission.use(state, limits) if spec.cards else []
    today = datetime.date.today()
    known = {u.account: u for u in used}
    for account, limit in limits.items():
        found = known.get(account) or quotas.use({}, account, limit, today)
        if why := (quotas.over(found, asked) if spec.cards else "") or _full(state, account, limit):
            do = "wait for its period to end, or raise `lab.quotas`" if spec.cards else "free some with `lab gc`"
            raise problem(f"experiment.{spec.name} is over the quota of {account}", why=why, do=do)


def _full(state: Path, account: str, limit: Quota) -> str:
    return quotas.full(account, limit, held(state, account)) if limit.disk else ""


def held(state: Path, account: str) -> int:
    """Bytes on disk of the folders of all runs that are charged to an account. Reads."""
    total = 0
    for folder in runs(state):
        spec = folder.spec
        if account in quotas.accounts(str(spec.get("owner") or ""), str(spec.get("project") or "")):
            for at, _, names in os.walk(folder.path):
                for name in names:
                    with contextlib.suppress(OSError):
                        total += os.lstat(os.path.join(at, name)).st_blocks * 512
    return total


@contextlib.contextmanager
def admitted(
    folder: RunFolder, need: int, total: int, check: Callable[[], None], say: Callable[[str], None]
) -> Iterator[admission.Promise]:
    """The run's place in the queue, and what it is given once it is let in; raises a Problem where its disk is full."""
    spec, state = folder.spec, folder.path.parents[1]
    limits = {a: Quota(**q) for a, q in (spec.get("quotas") or {}).items()}
    for account, limit in limits.items():
        if why := _full(state, account, limit):
            raise problem(f"it is over the quota of {account}", why=why, do="free some with `lab gc`")
    if spec.get("cards"):
        pool.note(state)
    place = admission.admit(state, need, total, folder.id, True, asks=asks(spec), limits=limits, check=check, say=say)
    with place as promise:
        yield promise


def asks(spec: Mapping[str, Any]) -> Asks:
    """What a run's spec asks of the queue besides memory. Pure."""
    return Asks(
        int(spec.get("cards") or 0),
        int(spec.get("priority") or 0),
        str(spec.get("owner") or ""),
        str(spec.get("project") or ""),
        spec.get("lasts"),
    )
