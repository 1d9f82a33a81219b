"""begun: what applies had begun to make elsewhere, and were stopped, before the declaration changed again.

A pending record keeps every declaration that was begun since it was last settled, in `inputs.begun`. What one of them
made where no declaration wants anything any more would be an orphan; it is removed with the next change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lab import kinds
from lab.app.lab import Lab
from lab.core.change import Action, Change
from lab.core.facts import differences
from lab.core.kind import Declaration
from lab.core.problem import Unknown
from lab.core.record import Record
from lab.core.step import Step


def leftovers(lab: Lab, change: Change, record: Record | None, declaration: Declaration) -> Iterator[Step]:
    """The steps that remove what was begun elsewhere than `declaration`, as far as it is still as Lab made it. Reads.

    Only places that a kind `claims` can be told apart; what somebody changed since is theirs and stays.
    """
    if record is None or not record.pending:
        return
    blocks = list(record.inputs.get("begun", ()))
    if not record.facts:
        blocks.append(record.declaration)
    kind = kinds.load(record.address.kind)
    if not blocks or kind is None:
        return
    taken = set(declaration.claims(lab.declared.context_for(change.address, declaration)))
    for address, other in lab.declarations.items():
        if address.kind == change.address.kind and address != change.address:
            taken.update(other.claims(lab.context(address)))
    world = lab.world()
    for block in blocks:
        try:
            old = kind.model_validate(block)
            context = lab.declared.context_for(change.address, old)
            claims = set(old.claims(context))
            if not claims or claims & taken:
                continue
            facts = old.observe(world, context)
            if facts is not None and differences(facts, old.wanted(context), partial=True):
                continue
        except (Unknown, ValueError):
            continue
        gone = replace(change, action=Action.DESTROY, wanted=None, recorded=facts or {}, observed=facts)
        yield from old.steps(gone, context)
