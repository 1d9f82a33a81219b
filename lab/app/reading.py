"""reading: what living runs and sweeps read is not changed under them: its change waits, and then says so.

A change is in the ledger before it is looked who reads, and a run looks there before it is seen: one sees the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager

from lab.app.lab import Lab
from lab.core.change import Action, Change
from lab.core.problem import problem
from lab.core.record import Record
from lab.core.step import Step
from lab.core.steps_runs import Await
from lab.ledger import lock
from lab.ledger.ledger import Ledger
from lab.runs.readers import alone, readers

PATIENCE = 30.0
"""Seconds a change waits for those that read what it changes, where `apply.patience` says nothing else."""
FRESH = 2.0
"""Seconds for which an answer is taken as true: ten thousand changes ask once, not each."""


class Reading:
    """Who reads what, asked when a change is about to be carried out."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._known: dict[str, list[str]] = {}
        self._at = float("-inf")

    def steps(self, change: Change, before: Record | None, own: Sequence[Step]) -> Iterator[Step]:
        """Its own steps, after one that waits where they take or alter what something reads, or may by then. Reads."""
        if self._takes(change, before) and (self._read(str(change.address)) or not all(s.light for s in own)):
            said = (self._lab.head.get("apply") or {}).get("patience")
            # A run keeps the prefix it began in (`lab.runs.prefix`); a sweep's next trial would begin in the new one.
            built = change.address.kind == "env" and change.action is not Action.DESTROY
            yield Await(PATIENCE if said is None else float(said), runs=not built)
        yield from own

    def _takes(self, change: Change, before: Record | None) -> bool:
        if change.release or change.action not in (Action.UPDATE, Action.REPLACE, Action.DESTROY, Action.RERUN):
            return False
        return before is None or before.digest != change.digest  # else a repair: it becomes again what it was

    def _read(self, address: str) -> bool:
        if time.monotonic() - self._at > FRESH:
            self._known, self._at = readers(self._lab.state), time.monotonic()
        return address in self._known


def entering(lab: Lab, given: Iterable[str]) -> Callable[[], AbstractContextManager[None]]:
    """Inside, a run comes to be seen as one that reads these, which are what they were when the lab was opened.

    Raises a Problem where an apply has changed one of them since, or is at it.
    """
    before = {str(a): r for a, r in lab.records.items() if str(a) in set(given)}

    @contextmanager
    def entered() -> Iterator[None]:
        with alone(lab.state):
            working = lock.working(lab.state / "lock")
            with closing(Ledger.read(lab.kept, lab.id, lab.stamps)) as ledger:
                now = {a: ledger.record(a) for a in before}
            for address, record in before.items():
                if now[address] != record or (working and record.pending):
                    who = lock.name(working) if working else "an apply"
                    raise problem(
                        f"{address} is being changed",
                        why=f"{who} is at it: a run would read neither what was nor what comes",
                        do="wait until it has ended, then do this again",
                    )
            yield

    return entered


def unchanging(lab: Lab, given: Iterable[str]) -> None:
    """Nothing of this is being changed; raises the same Problem."""
    with entering(lab, given)():
        return
