"""Memory of trials: none begins before its declared memory is free, among its own sweep and all others of the host."""

from __future__ import annotations

import contextlib
import time

from lab.adapters.admission import Promise, admit
from lab.core.problem import Problems
from lab.core.step import Stage
from lab.core.steps_sweeps import Search

EVERY = 0.25
"""Seconds between two questions whether memory is free."""


class Memory:
    """What the trials of one sweep are promised, in the host's ledger of promises (`lab.adapters.admission`)."""

    def __init__(self, step: Search, stage: Stage) -> None:
        self.step, self.stage = step, stage
        self._held: dict[str, contextlib.AbstractContextManager[Promise]] = {}
        self._told, self._asked = "", 0.0

    def admit(self, name: str) -> bool:
        """Whether the trial may begin; says what it waits for whenever that changes."""
        need, total = self.step.memory or 0, self.step.total or 0
        if not need or not total or name in self._held:
            return True
        if time.monotonic() - self._asked < EVERY:
            return False
        self._asked = time.monotonic()
        promise = admit(self.stage.state, need, total, name, False)
        try:
            promise.__enter__()
        except Problems as e:
            why = e.problems[0].why
            if need > total:
                raise
            if why != self._told:
                self._told = why
                self.stage.say(f"{name} waits for memory: {why}")
            return False
        self._held[name], self._told = promise, ""
        return True

    def release(self, name: str) -> None:
        """The trial has ended."""
        if (promise := self._held.pop(name, None)) is not None:
            promise.__exit__(None, None, None)

    def close(self) -> None:
        """The sweep holds nothing any more."""
        for name in list(self._held):
            self.release(name)
