"""Walk: the only walker of a plan: order, concurrency, batching, interruption."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from lab.apply.carry import Carrier
from lab.apply.events import Event
from lab.apply.results import Outcome, Result
from lab.core.address import Address

CHUNK = 256
"""How many light resources share one durable commit: few enough to lose little time, enough to cost little."""


class Walk:
    """One apply: hands each change's steps to their performers as soon as what it needs is finished.

    `stop` asks it to finish the steps in hand; `cancel` asks those to stop as well.
    """

    def __init__(self, carrier: Carrier, *, workers: int = 16) -> None:
        self.stop = threading.Event()
        self.cancel = carrier.cancel
        self._carrier = carrier
        self._deeds = carrier.deeds
        self._tell = carrier.tell
        self._workers = workers
        self._results: dict[Address, Result] = {}

    def run(self) -> dict[Address, Result]:
        """Everything that can be done is done; the result of each change, in the order they ended."""
        waits = {a: sum(1 for r in d.change.requires if r in self._deeds) for a, d in self._deeds.items()}
        feeds: dict[Address, list[Address]] = {}
        for address, deed in self._deeds.items():
            for required in deed.change.requires:
                if required in self._deeds:
                    feeds.setdefault(required, []).append(address)
        ready = deque(a for a, n in waits.items() if n == 0)
        running: dict[Future[list[tuple[Address, Result]]], None] = {}
        with ThreadPoolExecutor(self._workers, thread_name_prefix="apply") as threads:
            while ready or running:
                light: list[Address] = []
                while ready and not self.stop.is_set() and len(running) < 2 * self._workers:
                    address = ready.popleft()
                    steps = self._carrier.steps(address)
                    if isinstance(steps, Result):
                        self._end(address, steps, waits, feeds, ready)
                    elif all(s.light for s in steps) and not self._deeds[address].change.maybe:
                        light.append(address)
                        if len(light) == CHUNK:
                            running[threads.submit(self._carrier.together, tuple(light))] = None
                            light = []
                    elif any(s.batch for s in steps):
                        batch = [address, *self._more_batches(ready)]
                        running[threads.submit(self._carrier.batched, tuple(batch))] = None
                    else:
                        running[threads.submit(self._carrier.alone, address)] = None
                if light:
                    running[threads.submit(self._carrier.together, tuple(light))] = None
                if not running:
                    break
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    del running[future]
                    for address, result in future.result():
                        self._end(address, result, waits, feeds, ready)
        for address in self._deeds:
            if address not in self._results:
                self._results[address] = Result(Outcome.NOT_TRIED, why="the apply was interrupted")
        return self._results

    def _more_batches(self, ready: deque[Address]) -> list[Address]:
        found: list[Address] = []
        rest: list[Address] = []
        while ready:
            address = ready.popleft()
            steps = self._carrier.steps(address)
            batched = not isinstance(steps, Result) and any(s.batch for s in steps)
            (found if batched else rest).append(address)
        ready.extend(rest)
        return found

    def _end(
        self,
        address: Address,
        result: Result,
        waits: dict[Address, int],
        feeds: Mapping[Address, Sequence[Address]],
        ready: deque[Address],
    ) -> None:
        self._results[address] = result
        self._carrier.forget(address)
        change = self._deeds[address].change
        kind = {Outcome.DONE: "done", Outcome.FAILED: "failed", Outcome.NOT_TRIED: "skipped"}[result.outcome]
        self._tell(
            Event(kind, address, change.word, result.why, seconds=result.seconds, problems=tuple(result.problems))
        )
        if result.outcome is Outcome.DONE:
            for fed in feeds.get(address, ()):
                waits[fed] -= 1
                if waits[fed] == 0:
                    ready.append(fed)
            return
        stopped = [(address, fed) for fed in feeds.get(address, ())]
        while stopped:
            cause, fed = stopped.pop()
            if fed not in self._results:
                self._results[fed] = Result(Outcome.NOT_TRIED, why=f"needs {cause}")
                self._tell(Event("skipped", fed, self._deeds[fed].change.word, f"needs {cause}"))
                stopped += [(fed, more) for more in feeds.get(fed, ())]
