"""status, show, drift, verify: what there is, side by side with what was declared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.app.lab import Lab
from lab.app.plan import plan
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import ABSENT, Difference, Facts, differences
from lab.core.problem import Problems, Unknown, did_you_mean, problem
from lab.core.world import Depth
from lab.ledger import generations, lock

if TYPE_CHECKING:
    from lab.adapters.admission import Entry


@dataclass(frozen=True, slots=True)
class Line:
    """One resource in `lab status`."""

    address: Address
    state: str
    """`as declared`, what the plan would do, or `of another profile`."""
    reason: str
    profiles: tuple[str, ...]
    at: float


def status(lab: Lab, only: Sequence[str] = ()) -> list[Line]:
    """Every resource, declared or recorded, of this profile and of others."""
    found = plan(lab, only)
    lines = []
    for change in found.changes:
        record = lab.records.get(change.address)
        state = "as declared" if change.action is Action.NONE else f"to {change.word}"
        profiles = tuple(record.profiles.split()) if record else ()
        lines.append(Line(change.address, state, change.reason, profiles, record.at if record else 0.0))
    here = {c.address for c in found.changes}
    if not only:
        for address, record in lab.records.items():
            if address not in here:
                lines.append(Line(address, "of another profile", "", tuple(record.profiles.split()), record.at))
    return lines


def busy(lab: Lab) -> str:
    """Who is changing the lab now; empty for nobody. Reads."""
    found = lock.working(lab.state / "lock")
    return lock.name(found) if found else ""


def jobs(lab: Lab) -> list[Entry]:
    """What holds memory of this host now and what waits for it, in the order they came. Reads."""
    from lab.adapters import admission

    try:
        return admission.status(lab.state)
    except OSError:
        return []  # of another's lab only what may be read is told


@dataclass(frozen=True, slots=True)
class Shown:
    """One resource with everything known of it."""

    change: Change | None
    facts: tuple[tuple[str, Any, Any, Any], ...]
    """Field, wanted, recorded, observed."""
    declaration: Facts
    needs: tuple[Address, ...]
    needed_by: tuple[Address, ...]
    history: tuple[dict[str, Any], ...]
    where: str
    recorded_at: float
    digest: str


def show(lab: Lab, address: str) -> Shown:
    """Wanted, recorded and observed of one resource, with the reason for its change."""
    key = Address(address)
    if levels := lab.declared.ladders.get(key):
        raise problem(
            f"`{address}` is a ladder", why=f"its levels are {', '.join(levels)}", do=f"`lab show {levels[0]}`"
        )
    if key not in lab.declarations and key not in lab.records:
        known = {*lab.declarations, *lab.records}
        raise problem(
            f"`{address}` is neither declared nor recorded{did_you_mean(address, known)}", do="see `lab status`"
        )
    change = next((c for c in plan(lab).changes if c.address == key), None)
    wanted: Facts = lab.wanted(key).facts if key in lab.declarations else {}
    recorded: Facts = lab.records[key].facts if key in lab.records else {}
    observed: Facts = (change.observed if change else None) or {}
    if change and change.action is Action.NONE and not observed:
        observed = recorded
    names = sorted({*wanted, *recorded, *observed})
    facts = tuple((n, wanted.get(n, ABSENT), recorded.get(n, ABSENT), observed.get(n, ABSENT)) for n in names)
    declaration = lab.declarations.get(key)
    file, line = lab.place(key)
    return Shown(
        change,
        facts,
        declaration.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if declaration
        else lab.records[key].declaration,
        tuple(lab.declared.needs.get(key, ())),
        tuple(sorted(a for a, needs in lab.declared.needs.items() if key in needs)),
        tuple(generations.history(lab.ledger, address=address)[:5]),
        f"{file}:{line}" if line else file,
        lab.records[key].at if key in lab.records else 0.0,
        lab.declared.digests.get(key, "") or (lab.records[key].digest if key in lab.records else ""),
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """What looking closely at the recorded resources found."""

    drift: dict[Address, tuple[Difference, ...]]
    gone: tuple[Address, ...]
    unknown: dict[Address, str]
    sound: int
    seconds: float


def drift(lab: Lab, only: Sequence[str] = (), depth: Depth = Depth.FILES) -> Checked:
    """What the machine holds that differs from what was recorded, every file's stat looked at."""
    begun = time.perf_counter()
    world = lab.world(depth)
    found: dict[Address, tuple[Difference, ...]] = {}
    gone: list[Address] = []
    unknown: dict[Address, str] = {}
    sound = 0
    chosen = set(_chosen(lab, only))
    for address, record in lab.records.items():
        if address not in chosen:
            continue
        try:
            declaration = lab.revive(record)
            facts = declaration.observe(world, lab.declared.context_for(address, declaration))
        except Unknown as e:
            unknown[address] = str(e)
            continue
        except Problems as e:
            unknown[address] = e.problems[0].summary
            continue
        except OSError as e:
            unknown[address] = e.strerror or str(e)
            continue
        if facts is None:
            gone.append(address)
        elif differing := differences(record.facts, facts):
            found[address] = differing
        else:
            sound += 1
    lab.hashes.save()
    return Checked(found, tuple(gone), unknown, sound, time.perf_counter() - begun)


def verify(lab: Lab, only: Sequence[str] = ()) -> Checked:
    """The same, every byte read again and every hash computed anew."""
    return drift(lab, only, Depth.BYTES)


def _chosen(lab: Lab, only: Sequence[str]) -> Sequence[Address]:
    from lab.plan.select import matching

    return sorted(matching(only, list(lab.records))) if only else list(lab.records)
