"""Memory of trials: none begins before its declared memory is free, among its own sweep and all others of the host."""

from __future__ import annotations

from lab.core.step import Stage
from lab.core.steps_sweeps import Search
from lab.core.units import size


class Memory:
    """What the trials of one sweep hold now."""

    def __init__(self, step: Search, stage: Stage) -> None:
        self.step, self.stage = step, stage
        self.held: set[str] = set()
        self._said = False

    def admit(self, name: str) -> bool:
        """Whether the trial may begin; says once what it waits for."""
        need, total = self.step.memory or 0, self.step.total or 0
        if not need or not total or name in self.held:
            self.held.add(name)
            return True
        if (len(self.held) + 1) * need <= total or not self.held:
            self.held.add(name)
            self._said = False
            return True
        if not self._said:
            self._said = True
            busy = f"{len(self.held)} trials hold {size(len(self.held) * need)} of {size(total)}"
            self.stage.say(f"{name} waits for {size(need)} of memory: {busy}")
        return False

    def release(self, name: str) -> None:
        """The trial has ended."""
        self.held.discard(name)

    def close(self) -> None:
        """Nothing is held here any more; trials that go on hold their own."""
