"""Select: a part of a plan, by addresses and globs, with all that part needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from lab.core import graph
from lab.core.address import Address
from lab.core.problem import did_you_mean, problem
from lab.forecast import totals
from lab.plan.plan import Plan


def select(plan: Plan, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> Plan:
    """The plan for the resources that `only` names and what these need, without `exclude` and what needs those. Pure.

    A pattern is an address, a glob over addresses, a kind, or a ladder's address for all its levels.
    """
    if not only and not exclude:
        return plan
    needs = {Address(p.address): () for p in plan.problems if p.address} | {c.address: c.requires for c in plan.changes}
    known = list(needs)
    keep = set(known)
    if only:
        keep = matching(only, known)
        todo = list(keep)
        while todo:
            for needed in needs[todo.pop()]:
                if needed not in keep:
                    keep.add(needed)
                    todo.append(needed)
    if exclude:
        out = matching(exclude, known)
        keep -= out | graph.downstream(needs, out)
    changes = tuple(c for c in plan.changes if c.address in keep)
    shown = tuple(p for p in plan.problems if not p.address or _selected(Address(p.address), only, exclude))
    header = replace(plan.header, only=tuple(only), exclude=tuple(exclude))
    return Plan(header, changes, shown, totals.plan(changes))


def matching(patterns: Sequence[str], known: Sequence[Address]) -> set[Address]:
    """The addresses that any pattern names; a pattern that names none is a Problem. Pure."""
    found: set[Address] = set()
    below: dict[str, list[Address]] = {}
    for address in known:
        for name in _names(address):
            below.setdefault(name, []).append(address)
    for pattern in patterns:
        hits = below.get(pattern) or [a for a in known if fnmatchcase(a, pattern)]
        if not hits:
            hint = did_you_mean(pattern, known)
            raise problem(f"no resource matches `{pattern}`{hint}", do="see `lab status` for all addresses")
        found.update(hits)
    return found


def _selected(address: Address, only: Sequence[str], exclude: Sequence[str]) -> bool:
    wanted = not only or any(_hits(p, address) for p in only)
    return wanted and not any(_hits(p, address) for p in exclude)


def _hits(pattern: str, address: Address) -> bool:
    return pattern in _names(address) or fnmatchcase(address, pattern)


def _names(address: Address) -> Iterator[str]:
    """What names it without a glob: its kind, the address of its ladder, its own."""
    parts = address.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))
