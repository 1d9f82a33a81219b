"""reading: what living runs and sweeps read is not changed under them: its change waits, and then says so."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lab.app.lab import Lab
from lab.core.change import Action, Change
from lab.core.record import Record
from lab.core.step import Step
from lab.core.steps_runs import Await
from lab.runs.readers import readers

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

    def steps(self, change: Change, before: Record | None) -> Iterator[Step]:
        """The step that waits, where the change takes or alters what something reads. Reads."""
        if change.release or change.action not in (Action.UPDATE, Action.REPLACE, Action.DESTROY, Action.RERUN):
            return
        if before is not None and before.digest == change.digest:
            return  # a repair: it becomes again what it was
        if time.monotonic() - self._at > FRESH:
            self._known, self._at = readers(self._lab.state), time.monotonic()
        found = self._known.get(str(change.address), [])
        if change.address.kind == "env" and change.action is not Action.DESTROY:
            # A run keeps the prefix it began in (`lab.runs.prefix`); a sweep's next trial would begin in the new one.
            found = [r for r in found if not r.startswith("runs/")]
        if found:
            said = (self._lab.head.get("apply") or {}).get("patience")
            yield Await(tuple(sorted(found)), PATIENCE if said is None else float(said))
