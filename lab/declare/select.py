"""Select: which files of each kind's folder are part of the lab in this profile."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from lab.core.problem import did_you_mean


def select(wanted: Mapping[str, Any] | None, kind: str, names: Collection[str]) -> tuple[list[str], list[str]]:
    """The names of `kind` that the profile's `resources:` choose, in order, and what is wrong with the choice.

    Without `resources:` all are chosen; with it, a kind that it leaves out has none, unless `"*"` speaks for the rest.
    A choice is a name, a glob, or a list of them; `!name` leaves out. Pure.
    """
    if wanted is None:
        return sorted(names), []
    chosen = wanted.get(kind, wanted.get("*", ()))
    named = kind in wanted
    faults: list[str] = []
    if chosen is not None and not isinstance(chosen, (str, list, tuple)):
        faults.append(f"resources.{kind} takes a name, a glob or a list of them")
        chosen = ()
    patterns = [chosen] if isinstance(chosen, str) else list(chosen or ())
    found: set[str] = set()
    if patterns and all(isinstance(p, str) and p.startswith("!") for p in patterns):
        found |= set(names)
    for pattern in patterns:
        if not isinstance(pattern, str):
            faults.append(f"resources.{kind} takes names and globs, not `{pattern}`")
            continue
        out = pattern.startswith("!")
        text = pattern[1:] if out else pattern
        hits = {n for n in names if fnmatchcase(n, text)} if _is_glob(text) else {text} & set(names)
        if not hits and named and not _is_glob(text):
            faults.append(f"resources.{kind} names `{text}`, which is not declared{did_you_mean(text, names)}")
        found = found - hits if out else found | hits
    return sorted(found), faults


def _is_glob(text: str) -> bool:
    return any(c in text for c in "*?[")
