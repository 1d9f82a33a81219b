"""The truth table: wanted × recorded × observed → what the plan says of one resource."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import ABSENT, Difference, Facts, differences
from lab.core.kind import Declaration
from lab.core.problem import Problem
from lab.core.record import Record


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the declaration asks for, with all that its digest was made of."""

    declaration: Declaration
    facts: Facts
    inputs: Facts
    digest: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What was read from the world for one resource.

    `new` is seen through the wanted declaration, `old` through the recorded one; they are the same object where the
    declaration did not change. `unknown` says why neither could be read.
    """

    new: Facts | None = None
    old: Facts | None = None
    unknown: str = ""


def decide(address: Address, wanted: Wanted | None, record: Record | None, seen: Observation) -> Change | Problem:
    """The change for one resource, or the problem that stands in its way. Pure. See DESIGN.md §9, truth table."""
    if wanted is None:
        assert record is not None
        return _unwanted(record, seen)
    if record is not None and record.digest == wanted.digest and not record.pending and seen.old == record.facts:
        none = Change(address, Action.NONE, recorded=record.facts, observed=seen.new, digest=wanted.digest)
        if beside := _beside(wanted, record):
            reason = _because(beside, wanted, record)
            return replace(none, action=Action.UPDATE, wanted=wanted.facts, reason=reason, fields=beside)
        if record.protect == wanted.declaration.protect:
            return none
        # The mark is no part of a digest, and must be in the ledger all the same: there it guards a deleted YAML.
        mark = Difference("protect", record.protect, wanted.declaration.protect)
        reason = f"only the ledger is brought up to date: {told(mark)}"
        return replace(none, action=Action.ADOPT, wanted=wanted.facts, reason=reason)
    change = _wanted(address, wanted, record, seen)
    if isinstance(change, Change):
        change = replace(change, wanted=wanted.facts, digest=wanted.digest)
    return change


def _unwanted(record: Record, seen: Observation) -> Change:
    drift = differences(record.facts, seen.old) if seen.old is not None and not record.pending else ()
    gone = seen.old is None and not seen.unknown
    reason = "no longer declared"
    if record.pending:
        reason = "an interrupted apply had begun it; it is no longer declared"
    elif gone:
        reason = "no longer declared, and already gone"
    return Change(
        record.address,
        Action.DESTROY,
        reason,
        drift=drift,
        gone=gone,
        unknown=seen.unknown,
        release=record.adopted,
        recorded=record.facts,
        observed=seen.old,
    )


def _wanted(address: Address, wanted: Wanted, record: Record | None, seen: Observation) -> Change | Problem:
    declaration = wanted.declaration
    base = Change(address, Action.NONE, unknown=seen.unknown, observed=seen.new)
    matches = seen.new is not None and _matches(wanted, seen.new)
    if record is None:
        if seen.new is None:
            return replace(base, action=Action.CREATE, reason="declared, not there yet")
        if matches:
            return replace(base, action=Action.ADOPT, reason="it is there already, as declared")
        if declaration.reruns:  # another run stands beside this one: nothing is in its way
            return replace(base, action=Action.CREATE, reason="it has run, but not with these inputs")
        if declaration.overwrite:
            drift = differences(seen.new, wanted.facts, partial=True)
            return replace(
                base,
                action=Action.REPLACE,
                reason="it takes the place of an unmanaged one",
                fields=drift,
                recorded=None,
            )
        return _unmanaged(address, wanted, seen.new)

    base = replace(base, recorded=record.facts)
    fields = _asked(wanted, record)
    same = record.digest == wanted.digest
    if record.pending:
        # Wanted facts may leave the files open: what was recorded of the same inputs says how they were.
        damaged = same and bool(record.facts) and seen.new != record.facts
        if matches and not declaration.derived and not damaged:
            return replace(base, action=Action.ADOPT, reason="an interrupted apply had finished it; it is recorded now")
        action = Action.CREATE if not record.facts else _kind_of_change(declaration, fields)
        return replace(base, action=action, reason="an apply that did not finish it continues", fields=fields)
    if seen.unknown:
        if same:
            return replace(base, reason=f"cannot be observed: {seen.unknown}")
        return replace(
            base, action=_kind_of_change(declaration, fields), reason=_because(fields, wanted, record), fields=fields
        )
    if seen.old is None and not matches:
        if seen.new is not None and not same and not declaration.reruns:
            return _unmanaged(address, wanted, seen.new)
        reason = "it is gone" if same else f"it is gone; {_because(fields, wanted, record)}"
        again = Action.RERUN if declaration.reruns else Action.CREATE
        return replace(base, action=again, reason=reason, gone=True, fields=() if same else fields)
    drift = differences(record.facts, seen.old) if seen.old is not None else ()
    if same:
        if not drift:
            return base
        if matches and not differences(wanted.facts, record.facts, partial=False) and not declaration.derived:
            return base
        names = {d.field.split(".")[0] for d in drift}
        if names <= declaration.beside:
            if fields := _beside(wanted, record):
                return replace(base, action=Action.UPDATE, reason=_because(fields, wanted, record), fields=fields)
            return replace(base, action=Action.UPDATE, reason=drifted(drift), drift=drift)
        if (
            matches
            and "run" in names
            and "contents" not in names
            and seen.new
            and seen.new.get("digest") == wanted.digest
        ):
            # `lab run` made it once more, of the same inputs and with the same outputs: nothing is to be made again.
            return replace(
                base, action=Action.ADOPT, reason="another run of the same inputs stands; only it is recorded"
            )
        broken = _is_fixed(declaration, names) or declaration.reruns
        action = _kind_of_change(declaration, drift) if broken else Action.UPDATE
        return replace(base, action=action, reason=drifted(drift), drift=drift)
    if matches:
        return replace(
            base,
            action=Action.ADOPT,
            reason=f"only the ledger is brought up to date: {_because(fields, wanted, record)}",
        )
    if seen.new is not None and seen.old is not None and _elsewhere(seen.new, seen.old) and not declaration.overwrite:
        return _unmanaged(address, wanted, seen.new)
    action = _kind_of_change(declaration, fields)
    if not fields and declaration.derived and not declaration.reruns:
        action = Action.REPLACE
    return replace(base, action=action, reason=_because(fields, wanted, record), fields=fields, drift=drift)


def _matches(wanted: Wanted, observed: Facts) -> bool:
    if wanted.declaration.derived and observed.get("digest") != wanted.digest:
        return False
    return not differences(observed, wanted.facts, partial=True)


def _beside(wanted: Wanted, record: Record) -> tuple[Difference, ...]:
    """What the declaration changes of the facts that are no part of the digest."""
    names = wanted.declaration.beside
    if not names:
        return ()
    return differences(
        {n: v for n, v in record.facts.items() if n in names}, {n: v for n, v in wanted.facts.items() if n in names}
    )


def _elsewhere(new: Facts, old: Facts) -> bool:
    return bool(differences(old, {k: v for k, v in new.items() if k in old}, partial=True))


def _asked(wanted: Wanted, record: Record) -> tuple[Difference, ...]:
    """What the declaration changes: its own fields, then the contents behind it, else the facts it stands for.

    What `lab import` took over as it was knows no fields: only its facts can be compared.
    """
    before, after = record.inputs, wanted.inputs
    if not before:
        return differences(record.facts, wanted.facts, partial=True)
    named = [_from_default(d, wanted) for d in differences(before.get("fields", {}), after.get("fields", {}))]
    behind = differences(before.get("contents", {}), after.get("contents", {}))
    return (*named, *behind) or (
        () if _only_upstream(before, after) else differences(record.facts, wanted.facts, partial=True)
    )


def _from_default(d: Difference, wanted: Wanted) -> Difference:
    """The same with the kind's default on the side where the field is left out. Pure."""
    found = type(wanted.declaration).model_fields.get(d.field)
    if found is None or not isinstance(found.default, str | int | float) or found.default == "":
        return d
    if d.before is ABSENT:
        return replace(d, before=found.default)
    return replace(d, after=found.default) if d.after is ABSENT else d


def _only_upstream(before: Facts, after: Facts) -> bool:
    return bool(before.get("requires", {}) != after.get("requires", {}))


def _kind_of_change(declaration: Declaration, fields: tuple[Difference, ...]) -> Action:
    if declaration.reruns:
        return Action.RERUN
    return Action.REPLACE if _is_fixed(declaration, {d.field.split(".")[0] for d in fields}) else Action.UPDATE


def _is_fixed(declaration: Declaration, names: set[str]) -> bool:
    return bool(names) and (not names.isdisjoint(declaration.fixed) or "*" in declaration.fixed)


def _because(fields: tuple[Difference, ...], wanted: Wanted, record: Record) -> str:
    if fields:
        return "; ".join(told(d) for d in fields[:3]) + (f" and {len(fields) - 3} more" if len(fields) > 3 else "")
    before, after = record.inputs.get("requires", {}), wanted.inputs.get("requires", {})
    moved = sorted(a for a in {*before, *after} if before.get(a) != after.get(a))
    if not moved:
        return "the way Lab makes it changed"
    names = [f"its {Address(a).kind} changes" if len(moved) == 1 else Address(a) for a in moved[:3]]
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return names[0] if len(moved) == 1 else f"{', '.join(names)}{more} change"


def told(d: Difference) -> str:
    """`type: Q4_K_M → Q6_K`, with long values cut. Pure."""
    if d.before is ABSENT:
        return f"{d.field}: {shown(d.after)} is new"
    if d.after is ABSENT:
        return f"{d.field}: {shown(d.before)} is dropped"
    return f"{d.field}: {shown(d.before)} → {shown(d.after)}"


def drifted(drift: tuple[Difference, ...]) -> str:
    """`2 fields drifted: content and mode`. Pure."""
    names = [d.field for d in drift]
    head = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    return f"{head} drifted" if len(names) == 1 else f"{len(names)} facts drifted: {head}"


def shown(value: object) -> str:
    """A value on one short line, as YAML would have it. Pure."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False)
    text = value if isinstance(value, str) else "–" if value is ABSENT else repr(value)
    if len(text) >= 32 and all(c in "0123456789abcdef" for c in text):
        return text[:12]
    text = text.replace("\n", "⏎")
    return text if len(text) <= 60 else f"{text[:57]}…"


def _unmanaged(address: Address, wanted: Wanted, observed: Facts) -> Problem:
    differ = differences(observed, wanted.facts, partial=True)
    why = "; ".join(told(d) for d in differ[:3]) if differ else "what made it cannot be proven"
    return Problem(
        f"{address} exists already and is not managed",
        why=why,
        do=f"adopt it with `lab import {address}`, or set `overwrite: true` to replace it",
        address=address,
    )
