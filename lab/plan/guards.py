"""Guards: what a plan may show but apply refuses."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lab.core.address import Address
from lab.core.change import Action
from lab.core.problem import Problem
from lab.core.record import Record
from lab.plan.plan import Plan

SHARE = 0.3
"""The part of a lab that may go at once."""
SMALL = 5
"""Labs below this many resources have no such limit."""


def refusals(
    plan: Plan, records: Mapping[Address, Record], protected: Collection[Address], *, allow_destroy: bool = False
) -> tuple[Problem, ...]:
    """Why apply would refuse this plan; empty where it would not. Pure.

    `protected` are the addresses declared with `protect: true`; the ledger's own marks count as well, so that deleting
    the YAML does not disarm them.
    """
    found = []
    for change in plan.todo:
        record = records.get(change.address)
        guarded = change.address in protected or (record is not None and record.protect)
        if guarded and change.action in (Action.DESTROY, Action.REPLACE) and not change.release:
            found.append(
                Problem(
                    f"{change.address} is protected, and would be {_done[change.action]}",
                    why=change.reason,
                    do="declare it again, or set `protect: false`, apply, and then remove it"
                    if change.action is Action.DESTROY
                    else "set `protect: false` if you mean it",
                    address=change.address,
                )
            )
    gone = [c for c in plan.todo if c.action is Action.DESTROY and not c.gone]
    if len(records) >= SMALL and len(gone) > SHARE * len(records) and not allow_destroy and plan.header.verb == "apply":
        found.append(
            Problem(
                f"{len(gone)} of {len(records)} resources would be destroyed at once",
                why="more than 30 % of the lab; this is often a wrong profile or a lost folder",
                do="if you mean it, add `--allow-destroy`",
            )
        )
    return tuple(found)


_done = {Action.DESTROY: "destroyed", Action.REPLACE: "replaced"}
