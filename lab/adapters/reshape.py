"""Reshape: the steps of a dataset's `transform`, each a function of rows to rows. No code from YAML is executed but
what `map: package.module:function` names."""

from __future__ import annotations

import hashlib
import importlib
import operator
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.adapters.profile import key_of
from lab.core.problem import problem

Row = dict[str, Any]
_TEST = re.compile(r"^\s*(\w+)\s*(==|=|!=|<=|>=|<|>|in|contains|is)\s*(.+?)\s*$")
_OPS: Mapping[str, Any] = {
    "==": operator.eq, "=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
    "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


def apply(step: Mapping[str, Any], rows: Iterable[Row], *, seed: int, root: Path) -> Iterator[Row]:
    """One step; raises Problems where it cannot be understood."""
    ((verb, what),) = step.items()
    if verb == "select":
        return ({k: r.get(k) for k in what} for r in rows)
    if verb == "drop":
        return ({k: v for k, v in r.items() if k not in what} for r in rows)
    if verb == "rename":
        return ({what.get(k, k): v for k, v in r.items()} for r in rows)
    if verb == "fill":
        return ({**r, **{k: v for k, v in what.items() if r.get(k) is None}} for r in rows)
    if verb == "filter":
        keep = test(str(what))
        return (r for r in rows if keep(r))
    if verb == "dedupe":
        return _dedupe(rows, () if what is True else tuple([what] if isinstance(what, str) else what))
    if verb == "sort":
        name = str(what).removeprefix("-")
        order = sorted(rows, key=lambda r: (r.get(name) is None, _orderable(r.get(name))))
        return iter(order[::-1] if str(what).startswith("-") else order)
    if verb == "sample":
        return _sample(rows, what, seed)
    return _map(rows, str(what), root)


def test(text: str) -> Any:
    """`score > 0.5`, `language in [en, de]`, `text contains "lab"`, `score is not null`; joined by `and`. Pure."""
    tests = []
    for part in re.split(r"\s+and\s+", text):
        m = _TEST.match(part)
        if not m:
            raise problem(
                f"the filter `{text}` cannot be understood", do="write COLUMN OPERATOR VALUE, joined by `and`"
            )
        tests.append((m[1], m[2], _literal(m[3])))

    def holds(row: Mapping[str, Any]) -> bool:
        for name, op, wanted in tests:
            value = row.get(name)
            if op == "is":
                if (value is None) != (wanted in ("null", None)):
                    return False
            elif op == "in":
                if value not in wanted:
                    return False
            elif op == "contains":
                if value is None or wanted not in value:
                    return False
            elif (
                value is None
                or (type(value) in (str, bool)) != (type(wanted) in (str, bool))
                or not _OPS[op](value, wanted)
            ):
                return False
        return True

    return holds


def _literal(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _dedupe(rows: Iterable[Row], by: tuple[str, ...]) -> Iterator[Row]:
    seen = set()
    for row in rows:
        key = key_of({k: row.get(k) for k in by} if by else row)
        if key not in seen:
            seen.add(key)
            yield row


def _sample(rows: Iterable[Row], what: Any, seed: int) -> Iterator[Row]:
    """A share of the rows, or so many of them, chosen by the hash of each row: the same rows whatever their order."""
    ranked = [(fraction(row, seed), n, row) for n, row in enumerate(rows)]
    if isinstance(what, float) and what < 1:
        kept = [one for one in ranked if one[0] < what]
    else:
        kept = sorted(ranked, key=lambda one: one[:2])[: int(what)]
    return (row for _, _, row in sorted(kept, key=lambda one: one[1]))


def fraction(value: Any, seed: int) -> float:
    """Where a value falls between 0 and 1, by its hash and the seed. Pure."""
    data = f"{seed}:{key_of(value)}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) / 2**64


def _map(rows: Iterable[Row], name: str, root: Path) -> Iterator[Row]:
    function = imported(name, root)
    for row in rows:
        made = function(dict(row))
        if isinstance(made, Mapping):
            yield dict(made)
        elif made is not None:
            yield from (dict(m) for m in made)


def imported(name: str, root: Path) -> Any:
    """The function `package.module:function` names, from the lab's repository; raises Problems."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(root))
    try:
        sys.modules.pop(module, None)
        return getattr(importlib.import_module(module), attribute)
    except Exception as e:
        raise problem(
            f"{name} cannot be imported", why=f"{type(e).__name__}: {e}", do="check the name and the file"
        ) from e
    finally:
        sys.path.remove(str(root))


def _orderable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, (int, float)) else (1, str(value))
