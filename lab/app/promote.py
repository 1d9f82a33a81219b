"""promote: the versions that one stage was applied with and keeps are written into another's file, to be reviewed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.adapters.files import put
from lab.app.lab import Lab
from lab.app.plan import plan
from lab.core import stages
from lab.core.address import Address
from lab.core.change import Action
from lab.core.kind import Declaration
from lab.core.problem import Problem, Problems, problem
from lab.declare.yaml_edit import assign
from lab.ledger import generations
from lab.plan.select import matching

LOCKS = (".yaml", ".conda-lock.yml", ".environment.yml", ".virtual-packages.yml")
"""What a lock's files are called after the resource's name."""
ABSENT = object()


@dataclass(frozen=True, slots=True)
class Promoted:
    """What one stage takes over from another."""

    changed: tuple[Address, ...]
    """The resources that change in the target."""
    diff: str
    """The change of its file."""
    locks: tuple[str, ...]
    """Locks that are written, by their path in the lab."""
    kept: tuple[str, ...]
    """`file.note.content`: what differs and stays so, for it is no version."""
    missing: tuple[Address, ...]
    """What the source declares and the target does not."""
    generation: int
    """The source's generation."""


@dataclass(slots=True)
class Pair:
    """A resource as two stages have it, and what the target takes over."""

    address: Address
    source: Declaration
    target: Declaration
    values: dict[tuple[str, ...], Any] = field(default_factory=dict)
    """Path below the resource → value."""
    locks: dict[Path, Path] = field(default_factory=dict)
    """The source's file → the target's."""
    kept: list[str] = field(default_factory=list)


def promote(
    lab: Lab, source: str, target: str, only: Sequence[str] = (), *, pin: bool = False, check: bool = False
) -> Promoted:
    """The target's file and locks say the versions that the source was applied with; with `check` nothing is written.

    `only` chooses by address or glob; with `pin` versions are written that do not differ yet. Raises Problems where
    what is taken over is not as declared in the source, or where the target's file cannot say it.
    """
    if source == target:
        raise problem(f"{source} cannot be promoted to itself", do="name two stages: `lab promote test prod`")
    above, below = (lab.again((f"{stages.GROUP}={n}", *_plain(lab.overrides))) for n in (source, target))
    chosen = matching(only, list(above.declarations)) if only else set(above.declarations)
    pairs = [
        _compared(above, below, Pair(a, d, below.declarations[a]), pin)
        for a, d in above.declarations.items()
        if a in chosen and a in below.declarations
    ]
    file = f"conf/{stages.GROUP}/{target}.yaml"
    before = after = (lab.root / file).read_text(encoding="utf-8")
    changed = []
    for pair in pairs:
        text = after
        for path, value in pair.values.items():
            text = assign(text, [pair.address.kind, pair.address.name, *path], value, file)
        if text != after or pair.locks:
            changed.append(pair)
        after = text
    _refuse_unproven(above, {p.address for p in changed})
    copies = {to: f for p in changed for f, to in p.locks.items()}
    if changed and not check:
        _write(lab.again(below.overrides), {lab.root / file: after.encode()}, copies, changed)
    diff = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{file}", f"b/{file}", n=2)
    return Promoted(
        tuple(p.address for p in changed),
        "".join(diff),
        tuple(to.relative_to(lab.root).as_posix() for to in copies),
        tuple(f"{p.address}.{name}" for p in pairs for name in p.kept),
        tuple(a for a in above.declarations if a in chosen and a not in below.declarations),
        generations.latest(above.ledger),
    )


def _plain(overrides: Iterable[str]) -> Iterator[str]:
    """The overrides that say nothing of a stage."""
    return (o for o in overrides if not o.lstrip("+~").startswith(stages.GROUP))


def _compared(above: Lab, below: Lab, pair: Pair, pin: bool) -> Pair:
    """The pair with what the target takes over, and what it does not."""
    source, target = (d.model_dump(mode="json", by_alias=True) for d in (pair.source, pair.target))
    said = pair.source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    level = any(pair.address in levels for levels in above.declared.ladders.values())
    for name in source:
        there, here = source[name], target.get(name)
        if name not in pair.source.pinned:
            if there != here and not _place(there, here, above.stage, below.stage):
                pair.kept.append(name)
        elif level:  # its values are the ladder's, which says them for all levels
            pair.kept += [name] if there != here else []
        elif (pin and name in said) or (there != here and not _place(there, here, above.stage, below.stage)):
            pair.values |= dict(_leaves(pair.address, (name,), there, here, pin))
    for file, to in _locks(above, below, pair.address):
        theirs = next((p for f in below.locks if (p := Path(f, pair.address.kind, to.name)).exists()), None)
        if theirs is None or theirs.read_bytes() != file.read_bytes() or (pin and theirs != to):
            pair.locks[file] = to
    return pair


def _place(there: Any, here: Any, source: str, target: str) -> bool:
    """Whether two values differ by their stage's name only: a place of each, and no version. Pure."""
    if isinstance(there, Mapping) and isinstance(here, Mapping) and there.keys() == here.keys():
        return all(_place(there[k], here[k], source, target) for k in there)
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return all(_place(a, b, source, target) for a, b in zip(there, here, strict=True))
    if isinstance(there, str) and isinstance(here, str):
        either = f"(?:{re.escape(source)}|{re.escape(target)})"
        parts = re.split(rf"\b{re.escape(source)}\b", there)
        return bool(re.fullmatch(either.join(map(re.escape, parts)), here))
    return bool(there == here)


def _leaves(
    address: Address, path: tuple[str, ...], there: Any, here: Any, pin: bool
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path → value of what differs below `path`: mappings merge, so they are written value by value. Pure."""
    if not isinstance(there, Mapping):
        if pin or there != here:
            yield path, there
        return
    old = here if isinstance(here, Mapping) else {}
    for name in old.keys() - there.keys():
        raise problem(
            f"{address}.{'.'.join((*path, name))} is to go, and a stage's file can only add and change",
            do="take it out of the shared file, or of the stage's, by hand",
        )
    for name, value in there.items():
        yield from _leaves(address, (*path, name), value, old.get(name, ABSENT), pin)


def _locks(above: Lab, below: Lab, address: Address) -> Iterator[tuple[Path, Path]]:
    """The files of the source's lock → where the target's own lie. Reads."""
    for folder in above.locks:
        if Path(folder, address.kind, f"{address.name}.yaml").exists():
            for tail in LOCKS:
                if (file := Path(folder, address.kind, f"{address.name}{tail}")).exists():
                    yield file, Path(below.locks[0], address.kind, file.name)
            return


def _refuse_unproven(above: Lab, changed: set[Address]) -> None:
    """Raises Problems where what is promoted, or what is made from it, is not in the source as it is declared there."""
    if not changed:
        return
    needs, order = above.declared.needs, above.declared.order
    judged = set(changed)
    for address in order:
        if judged & set(needs.get(address, ())):
            judged.add(address)
    found = plan(above)
    wrong = {Address(p.address): p.summary for p in found.problems if Address(p.address) in judged}
    for change in found.changes:
        if change.address in judged and (change.action is not Action.NONE or change.unknown):
            wrong.setdefault(change.address, change.unknown or f"it is to {change.word}: {change.reason}")
    if wrong:
        do = f"`lab apply stage={above.stage}` first, and see that all is well; or name the resources to promote"
        raise Problems(
            *(
                Problem(f"{a} is not in stage {above.stage} as declared", why=why, do=do, address=a)
                for a, why in wrong.items()
            )
        )


def _write(below: Lab, texts: Mapping[Path, bytes], copies: Mapping[Path, Path], changed: Sequence[Pair]) -> None:
    """The files are written, unless the target would then not say what was meant: then they are as before."""
    files = {**texts, **{to: file.read_bytes() for to, file in copies.items()}}
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    try:
        for path, data in files.items():
            put(path, data)
        for pair in changed:
            now = below.declaration(pair.address).model_dump(mode="json", by_alias=True)
            meant = pair.source.model_dump(mode="json", by_alias=True)
            if wrong := sorted({path[0] for path in pair.values if now[path[0]] != meant[path[0]]}):
                raise problem(
                    f"{pair.address}.{wrong[0]} is still {now[wrong[0]]}",
                    why="a file that is composed after the stage's sets it",
                    do=f"choose the stage last in the defaults list, or set it there to {meant[wrong[0]]}",
                )
    except BaseException:
        for path, old in before.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                put(path, old)
        raise
