"""Carry: the ways to carry out one change or many, with the ledger true at every moment."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.apply.events import Event, Tell
from lab.apply.results import Outcome, Result, explained
from lab.apply.stage import Places, Work
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import ABSENT, Facts, differences, digest
from lab.core.masking import masked
from lab.core.problem import Problem, Problems, problem
from lab.core.record import Record
from lab.core.step import Cancelled, Step
from lab.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Deed:
    """A change with all that carrying it out needs: its steps, and how to look at the result."""

    change: Change
    steps: Callable[[], Sequence[Step]]
    observe: Callable[[], Facts | None]
    record: Callable[[Facts, str], Record]
    """Makes the new record from the observed facts and their content digest."""
    uses: tuple[Address, ...] = ()
    before: Record | None = None


@dataclass
class Capacity:
    """How many steps may occupy each thing at once."""

    limits: Mapping[str, int] = field(
        default_factory=lambda: {"network": 4, "cpu": max(1, (os.cpu_count() or 2) // 2), "ansible": 1, "memory": 1}
    )

    def __post_init__(self) -> None:
        self._free = {name: threading.Semaphore(n) for name, n in self.limits.items()}

    @contextmanager
    def taken(self, names: Sequence[str], cancel: threading.Event) -> Iterator[None]:
        """The capacities are ours inside; taken in one order, so that two steps never wait for each other."""
        with ExitStack() as stack:
            for name in sorted(names):
                free = self._free.setdefault(name, threading.Semaphore(1))
                while not free.acquire(timeout=0.2):
                    if cancel.is_set():
                        raise Cancelled(name)
                stack.callback(free.release)
            yield


@dataclass
class Carrier:
    """Carries out changes: hands their steps to performers, journals them, and records what is then observed."""

    deeds: Mapping[Address, Deed]
    ledger: Ledger
    generation: int
    places: Places
    performer: Callable[[str], Callable[..., Any]]
    resolve: Callable[[str], str]
    note: Callable[[str, str], None]
    tell: Tell
    capacity: Capacity = field(default_factory=Capacity)
    admit: Callable[[str, int, Work], AbstractContextManager[int]] = lambda name, need, work: nullcontext(0)
    """What lets a step in that needs so many bytes of memory, and says how many it was promised."""
    cancel: threading.Event = field(default_factory=threading.Event)
    contents: dict[Address, str] = field(default_factory=dict)
    """Content digest of every resource, as recorded or as just made."""

    def __post_init__(self) -> None:
        self._write = threading.Lock()
        self._made: dict[Address, Sequence[Step]] = {}

    def forget(self, address: Address) -> None:
        """The steps of a finished change are dropped: they may hold much text."""
        self._made.pop(address, None)

    def steps(self, address: Address) -> Sequence[Step] | Result:
        deed = self.deeds[address]
        if deed.change.release:
            return ()
        try:
            if address not in self._made:
                self._made[address] = tuple(deed.steps())
            return self._made[address]
        except Exception as e:
            return self._failure(address, e, 0.0)

    # --- ways to carry out a change ----------------------------------------------------------------------------

    def together(self, addresses: Sequence[Address]) -> list[tuple[Address, Result]]:
        """Light changes share a commit before (their intent) and one after (their records)."""
        out: list[tuple[Address, Result]] = []
        begun = time.perf_counter()
        try:
            self._intend(addresses)
        except Exception as e:
            return [(a, self._failure(a, e, 0.0)) for a in addresses]
        finished: list[tuple[Address, Facts | None]] = []
        for address in addresses:
            if self.cancel.is_set():
                out.append((address, Result(Outcome.NOT_TRIED, why="the apply was interrupted")))
                continue
            try:
                work = self._work(address)
                for step in self._made.get(address, ()):
                    work.outcome = {**work.outcome, **(self.performer(step.verb)(step, work) or {})}
                finished.append((address, self._look(address)))
                self._tidy(address)
            except Exception as e:
                out.append((address, self._failure(address, e, time.perf_counter() - begun)))
        try:
            self._settle(finished)
        except Exception as e:
            return out + [(a, self._failure(a, e, 0.0)) for a, _ in finished]
        share = (time.perf_counter() - begun) / max(1, len(addresses))
        return out + [(a, Result(Outcome.DONE, seconds=share)) for a, _ in finished]

    def alone(self, address: Address) -> list[tuple[Address, Result]]:
        """A change of its own: every step journalled before and after, finished steps not repeated."""
        begun = time.perf_counter()
        deed = self.deeds[address]
        try:
            if deed.change.maybe and self._spared(deed):
                return [(address, Result(Outcome.DONE, why="what it needs has equal content", seconds=0.0))]
            self.tell(Event("start", address, deed.change.word))
            self._intend([address])
            work = self._work(address)
            self._walk_steps(address, self._made.get(address, ()), work)
            facts = self._look(address)
            self._tidy(address)
            self._settle([(address, facts)])
            took = time.perf_counter() - begun - work.waited
            return [(address, Result(Outcome.DONE, seconds=took, said=_said(work.outcome)))]
        except Exception as e:
            return [(address, self._failure(address, e, time.perf_counter() - begun))]

    def _walk_steps(self, address: Address, steps: Sequence[Step], work: Work) -> None:
        done = self.ledger.finished_steps(address, self._key(address))
        for n, step in enumerate(steps):
            text = step.describe()
            if step.lasting and n in done and done[n][0] == text:
                work.outcome = {**work.outcome, **done[n][1]}
                continue
            work.check()
            asked = time.perf_counter()
            with self.capacity.taken(step.uses, self.cancel), self._promised([(address, step)], work):
                work.waited += time.perf_counter() - asked
                with self._write:
                    self.ledger.begin_step(address, n, self._key(address), text, self.generation)
                perform = self.performer(step.verb)
                if step.batch:
                    (told,) = perform([step], [work])
                    if isinstance(told, Problems):
                        raise told
                else:
                    told = perform(step, work)
            told = dict(told or {})
            with self._write:
                self.ledger.end_step(address, n, told)
            work.outcome = {**work.outcome, **told}

    @contextmanager
    def _promised(self, part: Sequence[tuple[Address, Step]], work: Work) -> Iterator[None]:
        """The memory that is forecast for steps which take much is theirs inside; before, they wait for it."""
        found = [self.deeds[a].change.forecast.memory for a, s in part if "memory" in s.uses]
        need = int(max((m.value for m in found if m is not None), default=0))
        with self.admit(str(part[0][0]), need, work) as work.promised:
            yield

    def batched(self, addresses: Sequence[Address]) -> list[tuple[Address, Result]]:
        """Changes whose steps are of one batch verb share one call; others among them run alone, before."""
        alone = [a for a in addresses if len({s.verb for s in self._made.get(a, ())}) > 1 or self.deeds[a].change.maybe]
        out = [r for a in alone for r in self.alone(a)]
        shared = [a for a in addresses if a not in set(alone)]
        if not shared:
            return out
        begun = time.perf_counter()
        rounds = max(len(self._made.get(a, ())) for a in shared)
        works = {a: self._work(a) for a in shared}
        failed: dict[Address, Exception] = {}
        try:
            self._intend(shared)
            for address in shared:
                self.tell(Event("start", address, self.deeds[address].change.word))
            for n in range(rounds):
                turn = [
                    (a, self._made.get(a, ())[n]) for a in shared if a not in failed and n < len(self._made.get(a, ()))
                ]
                for verb in sorted({s.verb for _, s in turn}):
                    part = [(a, s) for a, s in turn if s.verb == verb]
                    self._perform_batch(verb, part, works, failed)
        except Exception as e:
            failed.update({a: e for a in shared if a not in failed})
        seconds = (time.perf_counter() - begun) / len(shared)
        for address in shared:
            try:
                if address in failed:
                    raise failed[address]
                facts = self._look(address)
                self._tidy(address)
                self._settle([(address, facts)])
                out.append((address, Result(Outcome.DONE, seconds=seconds)))
            except Exception as e:
                out.append((address, self._failure(address, e, seconds)))
        return out

    def _perform_batch(
        self,
        verb: str,
        part: Sequence[tuple[Address, Step]],
        works: Mapping[Address, Work],
        failed: dict[Address, Exception],
    ) -> None:
        with self.capacity.taken(part[0][1].uses, self.cancel), self._promised(part, works[part[0][0]]):
            told = self.performer(verb)([s for _, s in part], [works[a] for a, _ in part])
        for (address, _), answer in zip(part, told, strict=True):
            if isinstance(answer, Exception):
                failed[address] = answer
            else:
                works[address].outcome = {**works[address].outcome, **(answer or {})}

    # --- the ledger --------------------------------------------------------------------------------------------

    def _intend(self, addresses: Sequence[Address]) -> None:
        """The intent is durable before anything is touched: nothing Lab began is ever unknown to it."""
        pending = []
        for address in addresses:
            deed = self.deeds[address]
            if deed.change.action in (Action.ADOPT, Action.MOVE) or deed.change.release:
                continue
            if deed.before is not None:
                pending.append(replace(_begun(deed), address=address, pending=True))
            elif deed.change.action is not Action.DESTROY:
                pending.append(replace(deed.record({}, ""), pending=True))
        if pending:
            moved = [m for a in addresses if (m := self.deeds[a].change.moved_from)]
            with self._write, self.ledger.transaction():
                self.ledger.put(pending)
                self.ledger.drop(moved)

    def _settle(self, finished: Sequence[tuple[Address, Facts | None]]) -> None:
        """The records of finished changes are durable, in one transaction with their history."""
        records, gone, entries = [], [], []
        for address, facts in finished:
            deed = self.deeds[address]
            change = deed.change
            if change.action is Action.DESTROY:
                gone.append(address)
                entries.append((address, change.word, change.reason, deed.before.digest if deed.before else "", ""))
                continue
            facts = facts or {}
            content = str(facts.get("content_digest") or digest(facts))
            self.contents[address] = content
            records.append(deed.record(facts, content))
            if change.moved_from:
                gone.append(change.moved_from)
            before = deed.before.digest if deed.before else ""
            entries.append((address, change.word, change.reason, before, change.digest))
        if not finished:
            return
        with self._write, self.ledger.transaction():
            self.ledger.put(records)
            self.ledger.drop(gone)
            self.ledger.forget_steps([a for a, _ in finished])
            self.ledger.log(self.generation, entries)

    def _spared(self, deed: Deed) -> bool:
        """Early cut-off: what it needs turned out with equal content, so only its digest is brought up to date."""
        if deed.before is None:
            return False
        used = deed.before.uses
        if any(self.contents.get(a, used.get(a)) != used.get(a) for a in deed.uses):
            return False
        with self._write, self.ledger.transaction():
            self.ledger.put([deed.record(deed.before.facts, deed.before.content)])
            self.ledger.log(
                self.generation,
                [
                    (
                        deed.change.address,
                        "adopt",
                        "what it needs has equal content",
                        deed.before.digest,
                        deed.change.digest,
                    )
                ],
            )
        self.contents[deed.change.address] = deed.before.content
        return True

    # --- one resource ------------------------------------------------------------------------------------------

    def _key(self, address: Address) -> str:
        change = self.deeds[address].change
        return change.digest or f"destroy {change.address}"

    def _work(self, address: Address) -> Work:
        return Work(address, self.places, self.resolve, self.note, self.tell, self.cancel)

    def _look(self, address: Address) -> Facts | None:
        """The facts now; a change that did not bring about what was wanted has failed."""
        deed = self.deeds[address]
        change = deed.change
        if change.release:
            return None
        facts = deed.observe()
        if change.action is Action.DESTROY:
            if facts is not None:
                raise problem(f"{address} is still there", why="its steps ran, yet it can be observed")
            return None
        if facts is None:
            self._repeat(address)
            raise problem(f"{address} is not there", why="its steps ran, yet it cannot be observed")
        left = differences(facts, change.wanted or {}, partial=True)
        if left:
            self._repeat(address)
            what = "; ".join(
                f"{d.field} is {'absent' if d.before is ABSENT else d.before!r}, not {d.after!r}" for d in left[:3]
            )
            raise problem(f"{address} is not as declared after its steps ran", why=what[:400])
        return facts

    def _repeat(self, address: Address) -> None:
        """What its finished steps did is no longer true: the next apply takes none of them as done."""
        with self._write, self.ledger.transaction():
            self.ledger.forget_steps([address])

    def _tidy(self, address: Address) -> None:
        """What its steps worked in is gone: before the record, so that a kill between leaves it to the next apply."""
        shutil.rmtree(self.places.state / "work" / address, ignore_errors=True)

    def _failure(self, address: Address, error: Exception, seconds: float) -> Result:
        if isinstance(error, Cancelled):
            return Result(Outcome.NOT_TRIED, why="the apply was interrupted", seconds=seconds)
        if isinstance(error, Problems):
            told = tuple(p.masked() for p in error.problems)
            return Result(Outcome.FAILED, told, seconds=seconds, why=told[0].summary)
        found = explained(error)
        if found is None:
            log = self._log(address, error)
            found = Problem(
                f"{type(error).__name__}: {error}".splitlines()[0][:200],
                why="this is a fault in Lab, not in your declaration",
                do=f"the details are in {log}",
            )
        found = found.masked()
        return Result(Outcome.FAILED, (found,), seconds=seconds, why=found.summary)

    def _log(self, address: Address, error: Exception) -> Path:
        folder = self.places.state / "logs"
        path = folder / f"{self.generation}-{address}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(masked("".join(traceback.format_exception(error))))
        except OSError:
            pass
        return path


def _begun(deed: Deed) -> Record:
    """The record from before; where the change declares something else, that is kept too: it may be left half-made."""
    before = deed.before
    assert before is not None
    if deed.change.action is Action.DESTROY:
        return before
    block = deed.record({}, "").declaration
    begun = before.inputs.get("begun", [])
    if block == before.declaration or block in begun:
        return before
    inputs = {**before.inputs, "begun": [*begun, block]}
    return replace(before, inputs_json=json.dumps(inputs, sort_keys=True, ensure_ascii=False))


def _said(outcome: Facts) -> str:
    return str(outcome.get("said", ""))
