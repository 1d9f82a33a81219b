"""Stage: which one is in force, told without composing: the state, the cache in it included, hangs on the answer."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.core.problem import Problem, Problems, did_you_mean, problem
from lab.core.stages import GROUP
from lab.declare.overrides import FILE
from lab.declare.read import read
from lab.declare.resolve import Resolver
from lab.declare.unresolved import Unresolved

_ASKED = re.compile(rf"(?:\+\+?)?{GROUP}=(.*)", re.DOTALL)
_ENTRY = re.compile(rf"(?:(?:override|optional) )*/?{GROUP}(?:@.*)?")


def names(root: Path) -> list[str]:
    """The stages a lab has files for. Reads."""
    try:
        found = os.listdir(root / "conf" / GROUP)
    except OSError:
        return []
    return sorted(n.removesuffix(".yaml") for n in found if n.endswith(".yaml") and n[0] not in "._")


def chosen(root: Path, overrides: Sequence[str]) -> str:
    """The stage that the overrides name, else the defaults list of lab.yaml; empty for none.

    Raises Problems where there is no such stage. Reads.
    """
    known = names(root)
    said = asked(overrides)
    if said is None:
        return _default(root, known) if known else ""
    return _one_of(said, known, root, file=FILE)


def asked(overrides: Sequence[str]) -> str | None:
    """The stage that overrides name, empty where they say none shall be in force; None where they leave it open."""
    found = None
    for text in overrides:
        if text == f"~{GROUP}":
            found = ""
        elif m := _ASKED.fullmatch(text):
            found = m[1].strip("'\"")
    return found


def agreed(stage: str, choices: Mapping[str, str]) -> Problem | None:
    """The problem of a lab whose stage is chosen where it cannot be told before composing. Pure."""
    found = choices.get(GROUP) or ""
    if (found if found not in ("null", "None") else "") == stage:
        return None
    return Problem(
        f"the stage `{found}` is chosen where it is not looked for",
        file="conf/lab.yaml",
        line=1,
        why="a file that lab.yaml chooses, such as a profile, chooses it in turn",
        do=f"choose it in the defaults list of conf/lab.yaml, or with {GROUP}={found}",
    )


def _default(root: Path, known: Sequence[str]) -> str:
    """What the defaults list of lab.yaml chooses; a file that cannot be read is left to who composes it. Reads."""
    try:
        value = read((root / "conf" / "lab.yaml").read_bytes(), "conf/lab.yaml").value
    except (OSError, Problems):
        return ""
    entries = value.get("defaults") if isinstance(value, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        for key, option in entry.items() if isinstance(entry, dict) else ():
            if option is None or not _ENTRY.fullmatch(str(key)):
                continue
            try:
                said: Any = Resolver(value).value(option, ("defaults",))
            except Unresolved as e:
                raise problem(e.summary, file="conf/lab.yaml", line=1, do=e.do) from None
            return _one_of(str(said), known, root, file="conf/lab.yaml") if said not in ("", "null") else ""
    return ""


def _one_of(said: str, known: Sequence[str], root: Path, *, file: str) -> str:
    if said in known or not said:
        return said
    left = (root / "state" / GROUP / said).is_dir() and "/" not in said
    raise problem(
        f"there is no {GROUP} `{said}`{did_you_mean(said, known)}",
        file=file,
        line=0 if file == FILE else 1,
        why=f"conf/{GROUP}/ has {', '.join(known) or 'no files'}"
        + (f"; what was applied in {said} is recorded in state/{GROUP}/{said}" if left else ""),
        do=f"bring conf/{GROUP}/{said}.yaml back from git; `lab destroy {GROUP}={said}` takes down what it holds"
        if left
        else f"choose one of them, or make conf/{GROUP}/{said}.yaml",
    )
