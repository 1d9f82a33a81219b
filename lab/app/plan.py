"""plan: what would change, why, and what it would cost. Never writes anything but the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lab.adapters import git
from lab.app import capacity
from lab.app.crossing import crossings, held
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.forecast import NOTHING, Forecast
from lab.core.problem import Problem, problem
from lab.core.record import Record
from lab.core.world import Depth
from lab.plan import guards, select
from lab.plan.decide import Observation, Wanted
from lab.plan.plan import Plan, make


def plan(
    lab: Lab,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    depth: Depth = Depth.STAT,
    verb: str = "apply",
    without: Sequence[str] = (),
    allow_destroy: bool = False,
) -> Plan:
    """The plan for a lab as it is declared now.

    `only` and `exclude` select by address or glob; `without` are resources to treat as no longer declared (destroy).
    Raises Problems where the declarations are wrong.
    """
    declared = lab.declared
    leave = set(without)
    wanted = {a: lab.wanted(a) for a in declared.declarations if a not in leave}
    found = make(
        lab.header(verb),
        wanted,
        declared.needs,
        lab.records,
        lab.observer(depth),
        moved=moves(lab, wanted),
        cost=lambda change: cost(lab, change),
        elsewhere=lambda record: record.address not in leave and another_profile(lab, record),
    )
    lab.hashes.save()
    leaving = {c.address for c in found.changes if c.action is Action.REPLACE}  # only then its place may be another
    found = select.select(found, only, exclude)
    if verb == "destroy":
        asked = (
            replace(c, reason="you asked to destroy it") if c.action is Action.DESTROY else c for c in found.changes
        )
        found = replace(found, changes=tuple(asked))
    protected = {a for a, d in declared.declarations.items() if d.protect}
    refused = guards.refusals(found, lab.records, protected, allow_destroy=allow_destroy)
    changes = tuple(c if c.action is Action.NONE else replace(c, where=_where(lab, c)) for c in found.changes)
    found, crowded = capacity.together(lab, found)
    lacking = capacity.too_little_disk(lab, found)
    crossed = (*crossings(lab, found), *held(lab, found, leaving))
    taken = {p.address for p in crossed}  # what stands there is another's: nobody is told to adopt it
    plain = (p for p in found.problems if p.address not in taken)
    problems = tuple(_placed(lab, p) for p in (*plain, *refused, *crowded, *lacking, *crossed))
    # Without the flag the apply that the plan names would be refused; with it named in vain, it would say too much.
    needed = allow_destroy and bool(guards.refusals(found, lab.records, ()))
    return replace(found, header=replace(found.header, allow_destroy=needed), changes=changes, problems=problems)


def against(lab: Lab, revision: str) -> Plan:
    """What the declarations here change, compared with those of another commit; the machine is not looked at."""
    with git.exported(lab.root, revision) as folder:
        old = lab.again(source=folder)
        records = {a: _as_recorded(old, a) for a in old.declarations}
    wanted = {a: lab.wanted(a) for a in lab.declarations}

    def pretend(address: Address, want: Wanted | None, record: Record | None) -> Observation:
        facts = record.facts if record else None
        return Observation(facts, facts)

    found = make(lab.header("against"), wanted, lab.declared.needs, records, pretend, moved=moves(lab, wanted, records))
    since = {Action.CREATE: f"added since {revision}", Action.DESTROY: f"dropped since {revision}"}
    changes = tuple(
        c if c.action is Action.NONE else replace(c, where=_where(lab, c), reason=since.get(c.action, c.reason))
        for c in found.changes
    )
    return replace(found, changes=changes)


def _as_recorded(lab: Lab, address: Address) -> Record:
    want = lab.wanted(address)
    return new_record(lab, address, want, want.facts, "", 0, {})


def new_record(
    lab: Lab,
    address: Address,
    want: Wanted,
    facts: Facts,
    content: str,
    generation: int,
    contents: Mapping[Address, str],
    before: Record | None = None,
    *,
    adopted: bool = False,
) -> Record:
    """The record of a resource realized as declared."""
    import json
    import time

    uses: dict[str, str | None] = dict.fromkeys(lab.declared.needs.get(address, ()))
    uses |= {a: contents.get(Address(a), "") for a in want.inputs["requires"]}
    profiles = sorted({*(before.profiles.split() if before else ()), lab.profile or "-"})

    def text(value: object) -> str:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)

    return Record(
        address,
        want.digest,
        content,
        text(dict(facts)),
        text(want.inputs),
        text(want.declaration.model_dump(mode="json", by_alias=True, exclude_defaults=True)),
        text(uses),
        " ".join(profiles),
        adopted,
        want.declaration.protect,
        False,
        generation,
        time.time(),
    )


def moves(
    lab: Lab, wanted: Mapping[Address, Wanted], records: Mapping[Address, Record] | None = None
) -> dict[Address, Address]:
    """Old address → new: what `moved:` says, and renamed files whose resource claims the same place."""
    records = lab.records if records is None else records
    told = {Address(m["from"]): Address(m["to"]) for m in lab.head.get("moved") or ()}
    lost = [a for a in records if a not in wanted and a not in told and not another_profile(lab, records[a])]
    fresh = [a for a in wanted if a not in records]
    if lost and fresh:
        places = {(a.kind, c): a for a in fresh for c in wanted[a].declaration.claims(lab.context(a))}
        for old in lost:
            try:
                declaration = lab.revive(records[old])
                claims = declaration.claims(lab.declared.context_for(old, declaration))
            except Exception:
                continue
            for claim in claims:
                if (new := places.get((old.kind, claim))) is not None:
                    told[old] = new
    return told


def another_profile(lab: Lab, record: Record) -> bool:
    """Whether only another profile declares a recorded resource: then this one leaves it alone."""
    profiles = record.profiles.split()
    return (bool(profiles) and (lab.profile or "-") not in profiles) or len(profiles) > 1


def cost(lab: Lab, change: Change) -> Forecast:
    """What a change will cost, as its kind forecasts it."""
    declaration = lab.declarations.get(change.address)
    if declaration is None or change.action in (Action.DESTROY, Action.ADOPT, Action.MOVE):
        return NOTHING
    return declaration.forecast(change, lab.context(change.address))


def _where(lab: Lab, change: Change) -> str:
    file, line = lab.place(change.address, change.fields[0].field if change.fields else "")
    return f"{file}:{line}" if line else file


def _placed(lab: Lab, found: Problem) -> Problem:
    if found.file:
        return found
    file, line = lab.place(found.address)
    return replace(found, file=file, line=line)


def save(found: Plan, path: Path) -> None:
    """The plan is in a file, for `lab apply FILE`."""
    import json

    from lab.adapters.files import put

    if not path.absolute().parent.is_dir():
        raise problem(f"there is no folder {path.absolute().parent}", do="make it, or save the plan elsewhere")
    put(path, (json.dumps(found.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
