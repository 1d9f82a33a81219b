"""crossing: what a resource would take from another, of this stage or a further one: a path, an account. Reads."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.change import Action
from lab.core.problem import Problem, Problems, Unknown
from lab.core.record import Record
from lab.plan.plan import Plan

SPARED = (Action.NONE, Action.DESTROY)
COMING = (Action.CREATE, Action.ADOPT, Action.REPLACE)


def crossings(lab: Lab, plan: Plan) -> Iterator[Problem]:
    """A problem for each change whose place another stage holds; they are looked at only where there is a change."""
    todo = {Address(p.address) for p in plan.problems} | {c.address for c in plan.changes if c.action not in SPARED}
    todo &= set(lab.declarations)
    others = lab.others if todo else {}
    if not others:
        return
    mine = {claim: a for a in todo for claim in lab.declarations[a].claims(lab.context(a))}
    kinds = {a.kind for a in mine.values()}
    for stage in others if mine else ():
        with contextlib.suppress(Problems):  # that stage's own plan says what is wrong with its ledger
            for claim, theirs in _claims(lab, stage, lab.records_of(stage, aloof=True), kinds).items():
                if claim in mine:
                    yield _problem(mine[claim], theirs, claim, stage, lab.stage)


def held(lab: Lab, plan: Plan, leaving: Collection[Address]) -> Iterator[Problem]:
    """A problem for each resource whose place another still has, which would take what is there along as it leaves."""
    coming = {Address(p.address) for p in plan.problems} | {c.address for c in plan.changes if c.action in COMING}
    coming = coming & set(lab.declarations) if leaving else set()
    mine = {claim: a for a in coming for claim in lab.declarations[a].claims(lab.context(a))}
    kinds = {a.kind for a in mine.values()}
    records = {a: lab.records[a] for a in leaving if a in lab.records and a in lab.declarations}
    for claim, other in _claims(lab, lab.stage, records, kinds).items():
        if mine.get(claim, other) != other:
            yield Problem(
                f"{mine[claim]} cannot have {claim} yet",
                why=f"it is still {other}'s, which takes what is there along when it leaves",
                do=f"run `lab apply --only {other}` first, then this again",
                address=mine[claim],
            )


def _claims(lab: Lab, stage: str, records: Mapping[Address, Record], kinds: set[str]) -> dict[str, Address]:
    out: dict[str, Address] = {}
    for address, record in records.items():
        if address.kind in kinds:
            # A record this Lab cannot revive, or whose references are gone, holds no place that could be told.
            with contextlib.suppress(Unknown, Problems, LookupError):
                declaration = lab.revive(record)
                context = lab.declared.context_in(stage, address)
                out |= dict.fromkeys(declaration.claims(context), address)
    return out


def _problem(mine: Address, theirs: Address, claim: str, stage: str, here: str) -> Problem:
    whose = f"stage {stage}" if stage else "the lab without a stage"
    where = f"conf/stage/{here}.yaml" if here else "its file"
    return Problem(
        f"{mine} would take {claim}, which {theirs} of {whose} holds",
        why="stages share this machine, and each would undo what the other does",
        do=f"write `${{lab.stage}}` into the value that says so, or set another one in {where}, or "
        f"`{mine.kind}: {{{mine.name}: {{enabled: false}}}}` there",
        address=mine,
    )
