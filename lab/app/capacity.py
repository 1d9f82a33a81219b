"""capacity: what a plan asks of the machine as a whole: of its volumes, and of its memory for what is used at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.app.lab import Lab, read_machine
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.forecast import Estimate
from lab.core.problem import Problem, Problems
from lab.core.units import size
from lab.declare.marks import locate
from lab.forecast import fit, totals
from lab.plan import select
from lab.plan.plan import Plan


def too_little_disk(lab: Lab, found: Plan) -> Iterator[Problem]:
    """What the volumes of this machine cannot hold; elsewhere, what the host's declared disk cannot. Reads."""
    needs, host, here = found.forecast, lab.host, read_machine()
    if not needs.volumes:
        return
    free: dict[str, int | None] = {"": host.disk}
    told = f"{host.name} has {size(host.disk or 0)}"
    if host.name == "auto" or (host.platform, host.chip, host.memory) == (here.platform, here.chip, here.memory):
        free, told = {volume: lab.world().volume(volume or str(lab.store)) for volume in needs.volumes}, ""
    for volume, need, left in totals.shortfalls(needs, free):
        yield Problem(
            f"the plan needs {size(need)} of disk, {told or f'{volume or lab.store} has {size(left)} free'}",
            why="at its peak, while it is being done",
            do="free some (`lab gc` shows what nothing needs), or leave something out with `--exclude`",
        )


def together(lab: Lab, found: Plan) -> tuple[Plan, list[Problem]]:
    """The plan with the memory of all that `together:` names, and the problem that it does not fit. Pure."""
    patterns = list(lab.head.get("together") or ())
    if not patterns:
        return found, []
    wanted = [c for c in found.changes if c.action is not Action.DESTROY]
    try:
        chosen = select.matching(patterns, [c.address for c in wanted])
    except Problems as e:
        return found, [_placed(lab, replace(p, summary=f"together: {p.summary}")) for p in e.problems]
    parts = {c.address: need for c in wanted if c.address in chosen and (need := _used(lab, c))}
    total = totals.add(list(parts.values()))
    if total is None:
        return found, []
    found = replace(found, forecast=replace(found.forecast, together=total))
    bound = fit.limit(lab.host)
    if bound is None or total.value <= bound.bytes:
        return found, []
    fault = Problem(
        f"what is used together does not fit on {lab.host.name}: {len(parts)} resources need {size(total.value)}",
        why=f"there are {size(bound.bytes)} ({bound.name})",
        do=_less(parts, bound.bytes),
    )
    return found, [_placed(lab, fault)]


def _used(lab: Lab, change: Change) -> Estimate | None:
    """Bytes of memory while a resource is used as declared, changed or not."""
    declaration = lab.declarations[change.address]
    return declaration.forecast(replace(change, action=Action.CREATE), lab.context(change.address)).memory


def _less(parts: dict[Address, Estimate], limit: float) -> str:
    """Which to leave out so that the rest fits: one if one is enough, else the largest until it does. Pure."""
    total = sum(e.value for e in parts.values())
    enough = [a for a, e in parts.items() if total - e.value <= limit]
    if enough:
        smallest = min(enough, key=lambda a: parts[a].value)
        return f"leave {smallest} out of `together`: the others need {size(total - parts[smallest].value)}"
    out: list[Address] = []
    for address in sorted(parts, key=lambda a: -parts[a].value):
        if total <= limit:
            break
        out.append(address)
        total -= parts[address].value
    return f"leave {_listed(out)} out of `together`: the others need {size(total)}"


def _listed(many: Sequence[Address]) -> str:
    return ", ".join(many[:-1]) + f" and {many[-1]}"


def _placed(lab: Lab, found: Problem) -> Problem:
    """The problem, at the line that says `together`."""
    for name in (f"profile/{lab.profile}.yaml", "lab.yaml"):
        line, column = locate(lab.conf / name, ["together"], key=True)
        if line > 1:
            return replace(found, file=f"conf/{name}", line=line, column=column)
    return found
