"""here: where a lab stands, told from conf/ and ledger alone; the machine is not looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from lab.app.lab import Lab
from lab.app.plan import another_profile
from lab.core.address import Address
from lab.ledger import generations
from lab.ledger.lock import holder, name, working


@dataclass(frozen=True, slots=True)
class Here:
    """How much is declared and recorded, what needs attention, and what is likely next."""

    declared: int
    recorded: int
    attention: tuple[str, ...]
    next: tuple[str, ...]


def here(lab: Lab) -> Here:
    """Where a lab stands; raises Problems where it cannot be read. Reads."""
    mine = {a: r for a, r in lab.records.items() if a in lab.declarations or not another_profile(lab, r)}
    begun = sorted(a for a, r in mine.items() if r.pending)
    new = [a for a in lab.declarations if a not in mine]
    changed = [
        a
        for a, digest in lab.declared.digests.items()
        if a in mine and not mine[a].pending and mine[a].digest != digest
    ]
    dropped = [a for a in mine if a not in lab.declarations]
    attention = [*_last(lab, begun)]
    if mine and (new or changed or dropped):
        counts = ((new, "new"), (changed, "changed"), (dropped, "no longer declared"))
        attention.append("since the last apply: " + ", ".join(f"{len(a)} {what}" for a, what in counts if a))
    unlocked = sorted(a for a in lab.declarations if _unlocked(lab, a))
    if unlocked:
        shown = ", ".join(unlocked[:3]) + (f" and {len(unlocked) - 3} more" if len(unlocked) > 3 else "")
        attention.append(f"not locked, so not the same on another machine: {shown}")
    steps = ["lab lock"] if unlocked and not lab.offline else []
    steps += ["lab plan", *(["lab apply"] if begun or new or changed or dropped else [])]
    return Here(len(lab.declarations), len(mine), tuple(attention), tuple(steps))


def _last(lab: Lab, begun: list[Address]) -> Iterator[str]:
    """What became of the last apply, where it is not simply done."""
    busy = working(lab.state / "lock")
    if busy:
        yield f"{name(busy)} is at work"
        return
    for g in generations.generations(lab.ledger, 1):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(g.at))
        left = f"; {len(begun)} begun and not finished: {', '.join(begun[:3])}" if begun else ""
        if g.outcome != "done":
            how = {"failed": "did not finish everything", "interrupted": "was interrupted"}.get(g.outcome, "was killed")
            yield f"generation {g.number} (`lab {g.verb}`, {when}) {how}{left}; `lab apply` continues"
            return
    if begun:
        yield f"{len(begun)} begun and not finished: {', '.join(begun[:3])}; `lab apply` continues"
    if (left_by := holder(lab.state / "lock")) is not None:
        yield f"{name(left_by)} died while it held the lock; the next apply takes it over"


def _unlocked(lab: Lab, address: Address) -> bool:
    open_ = None in lab.declared.inputs[address]["contents"].values()
    return open_ and lab.declarations[address].resolve(lab.context(address)) is not None
