"""Plan: all changes, in order, with a forecast; a frozen value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lab.core import graph
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import digest
from lab.core.forecast import NOTHING, Forecast
from lab.core.problem import Problem
from lab.core.record import Record
from lab.forecast import totals
from lab.forecast.totals import NOTHING_TO_DO, Totals
from lab.plan.decide import Observation, Wanted, decide

FORMAT = 1
"""Version of the JSON plan; grows when a field changes its meaning."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a plan was made of, besides its changes."""

    lab: str = ""
    lab_id: str = ""
    profile: str = ""
    stage: str = ""
    host: str = ""
    branch: str = ""
    revision: str = ""
    dirty: bool = False
    generation: int = 0
    serial: int = 0
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_destroy: bool = False
    verb: str = "apply"


@dataclass(frozen=True, slots=True)
class Plan:
    """What apply would do. `changes` holds every resource, unchanged ones too, each after all it needs."""

    header: Header
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...] = ()
    forecast: Totals = NOTHING_TO_DO

    @property
    def todo(self) -> tuple[Change, ...]:
        """The changes that do something."""
        return tuple(c for c in self.changes if c.action is not Action.NONE)

    @property
    def summary(self) -> dict[str, int]:
        """How many of each action, every word present."""
        count = Counter(c.action for c in self.changes)
        return {str(a): count.get(a, 0) for a in Action}

    def to_json(self) -> dict[str, Any]:
        """As documented in `docs/plan-schema.json`. The digest is over all that apply acts on."""
        h = self.header
        changes = [c.to_json() for c in self.changes]
        return {
            "format": FORMAT,
            "lab": h.lab,
            "lab_id": h.lab_id,
            "profile": h.profile,
            "stage": h.stage,
            "host": h.host,
            "commit": h.revision,
            "dirty": h.dirty,
            "generation": h.generation,
            "serial": h.serial,
            "overrides": list(h.overrides),
            "only": list(h.only),
            "exclude": list(h.exclude),
            "verb": h.verb,
            "changes": changes,
            "summary": self.summary,
            "forecast": self.forecast.to_json(),
            "problems": [p.to_json() for p in self.problems],
            "digest": self.digest(),
        }

    def digest(self) -> str:
        """Identity of what would be done: equal for two plans that act alike. Pure."""
        return digest([[c.address, c.action, c.digest, c.recorded, c.observed, c.release] for c in self.todo])


Forecaster = Callable[[Change], Forecast]
Claims = Callable[[Record], tuple[str, ...]]


def make(
    header: Header,
    wanted: Mapping[Address, Wanted],
    needs: Mapping[Address, Iterable[Address]],
    records: Mapping[Address, Record],
    observe: Callable[[Address, Wanted | None, Record | None], Observation],
    *,
    moved: Mapping[Address, Address] | None = None,
    cost: Forecaster = lambda change: NOTHING,
    elsewhere: Callable[[Record], bool] = lambda record: False,
) -> Plan:
    """The plan for a lab. Pure but for `observe`.

    `moved` maps old addresses to new ones. `elsewhere` says of a record that another profile declares it: such a
    resource is left alone.
    """
    moves = {new: old for old, new in (moved or {}).items() if old in records and new not in records and new in wanted}
    taken = set(moves.values())
    changes: dict[Address, Change] = {}
    problems: list[Problem] = []
    for address in sorted({*wanted, *records}):
        want, record = wanted.get(address), records.get(address)
        if want is None and record is not None and (address in taken or elsewhere(record)):
            continue
        if address in moves:
            record = records[moves[address]]
        found = decide(address, want, record, observe(address, want, record))
        if isinstance(found, Problem):
            problems.append(found)
            continue
        if address in moves:
            same = found.action in (Action.NONE, Action.ADOPT)
            found = replace(
                found,
                action=Action.MOVE if same else found.action,
                moved_from=moves[address],
                reason=f"was {moves[address]}" + ("" if same else f"; {found.reason}"),
            )
        changes[address] = found
    ordered = _in_order(changes, needs, records)
    ordered = [_consequence(c, wanted, records, changes) for c in ordered]
    costed = tuple(c if c.action is Action.NONE else replace(c, forecast=cost(c)) for c in ordered)
    return Plan(header, costed, tuple(problems), totals.plan(costed))


def _in_order(
    changes: Mapping[Address, Change], needs: Mapping[Address, Iterable[Address]], records: Mapping[Address, Record]
) -> list[Change]:
    """Each after what it needs; a destroy after all that had needed it."""
    busy = {a for a, c in changes.items() if c.action is not Action.NONE}
    if not busy:
        return list(changes.values())
    waits: dict[Address, set[Address]] = {a: set() for a in changes}
    for address, change in changes.items():
        if change.action is not Action.DESTROY:
            waits[address].update(n for n in needs.get(address, ()) if n in changes)
    going = {a for a in busy if changes[a].action is Action.DESTROY}
    if going:
        for address, record in records.items():
            if address in changes:
                for used in going.intersection(record.requires):
                    waits[used].add(address)
    return [
        replace(changes[a], requires=tuple(sorted(w for w in waits[a] if w in busy))) if a in busy else changes[a]
        for a in graph.order(waits)
    ]


def _consequence(
    change: Change,
    wanted: Mapping[Address, Wanted],
    records: Mapping[Address, Record],
    changes: Mapping[Address, Change],
) -> Change:
    """Marks a change that apply can spare if what it needs turns out to have equal content."""
    record, want = records.get(change.moved_from or change.address), wanted.get(change.address)
    if record is None or want is None or change.fields or change.drift or change.gone or record.pending:
        return change
    if change.action not in (Action.UPDATE, Action.REPLACE, Action.RERUN):
        return change
    before, after = record.inputs.get("requires", {}), want.inputs.get("requires", {})
    if before.keys() != after.keys():
        return change
    upstream = [Address(a) for a in before if before[a] != after[a]]
    redone = all(a in changes and changes[a].action is not Action.NONE for a in upstream)
    return replace(change, maybe=bool(upstream) and redone)
