"""Check: what is wrong between declarations: references, circles, names claimed twice, and what kinds say."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from lab.core.address import Address, is_name
from lab.core.graph import cycle
from lab.core.kind import Declaration
from lab.core.problem import Problem, Problems, did_you_mean
from lab.declare.conf import known_kinds
from lab.declare.declared import Declared


def check(
    declared: Declared, disabled: Collection[Address], broken: Collection[Address], *, partial: bool, earlier: bool
) -> list[Problem]:
    """What is wrong with sound declarations taken together; connects them on the way. Reads.

    `broken` are addresses whose own block is wrong: references to them are not reported again. With `partial` the
    head could not be composed, and nothing is known of references; with `earlier` it has problems of its own.
    """
    if partial:
        return []
    declared.connect()
    problems = list(_dangling(declared, disabled, broken))
    if len(declared.order) < len(declared.needs) and (circle := cycle(declared.needs)):
        file, line, column = declared.where.at(circle[0], _path_to(declared.declarations[circle[0]], circle[1]))
        summary = f"{circle[0]} needs itself: {' → '.join(circle)}"
        problems.append(Problem(summary, file, line, column, do="break the circle", address=circle[0]))
    problems += _said(declared, earlier or bool(problems))
    return problems


def _dangling(declared: Declared, disabled: Collection[Address], broken: Collection[Address]) -> Iterator[Problem]:
    known = declared.declarations
    for address, refs in declared.needs.items():
        for ref in refs:
            if ref in known or ref in broken:
                continue
            declaration = known[address]
            path = _path_to(declaration, ref)
            file, line, column = declared.where.at(address, path)
            if ref in disabled:
                yield Problem(
                    f"{address} refers to {ref}, which is not enabled",
                    file, line, column, do=f"enable {ref}, or set `enabled: false` here too", address=address,
                )  # fmt: skip
                continue
            hint = _hint(ref, {*known, *declared.ladders})
            why = "" if is_name(ref.name) and ref.kind in known_kinds() else "expected KIND.NAME"
            yield Problem(
                f"{address} refers to {ref}, which is not declared{hint}",
                file, line, column, why=why, do="declare it, or mend the reference", address=address,
            )  # fmt: skip


def _hint(ref: Address, known: Collection[Address]) -> str:
    same = {a.name: a for a in known if a.kind == ref.kind}
    if hint := did_you_mean(ref.name, same):
        return hint
    elsewhere = [a for a in known if a.name == ref.name]
    return f" — did you mean `{min(elsewhere)}`?" if elsewhere else did_you_mean(ref, known)


def _path_to(declaration: Declaration, ref: Address) -> list[Any]:
    """Where in its block a declaration names `ref`: the path to the field, and into it. Pure."""
    for field, info in type(declaration).model_fields.items():
        found = _find(getattr(declaration, field), ref)
        if found is not None:
            return [info.alias or field, *found]
    return []


def _find(value: Any, ref: Address) -> list[Any] | None:
    if isinstance(value, str):
        return [] if value == ref or (ref.startswith(f"{value}.") and "." in value) else None
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return None
    for key, inner in items:
        found = _find(inner, ref)
        if found is not None:
            return [key, *found]
    return None


def _said(declared: Declared, earlier: bool) -> Iterator[Problem]:
    """What each kind finds wrong in its context, and what two resources claim at once."""
    claims: dict[str, Address] = {}
    for address, declaration in declared.declarations.items():
        if any(r not in declared.declarations for r in declared.needs[address]):
            continue  # said where the reference stands; the kind could only stumble over it
        context = declared.context(address)
        try:
            for said in declaration.check(context):
                summary, field, do = (said, "", "") if isinstance(said, str) else said
                file, line, column = declared.where.at(address, field if field else ())
                yield Problem(summary, file, line, column, do=do, address=address)
            for claim in declaration.claims(context):
                other = claims.setdefault(claim, address)
                if other != address:
                    file, line, column = declared.where.at(address, ())
                    summary = f"{address} and {other} both claim {claim}"
                    yield Problem(summary, file, line, column, do="declare it once", address=address)
        except Problems as e:
            file, line, column = declared.where.at(address, ())
            yield from (p if p.file else replace(p, file=file, line=line, column=column) for p in e.problems)
        except Exception as e:
            if not earlier:
                file, line, column = declared.where.at(address, ())
                said = f"{address} cannot be understood ({type(e).__name__}: {e})"
                yield Problem(said, file, line, column, do="compare it with `lab schema`", address=address)
