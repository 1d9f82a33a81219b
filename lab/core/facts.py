"""Facts: plain, comparable values about a resource, and their one generic difference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]
"""Flat or nested JSON values by name: str, int, float, bool, None, list, dict. Never a secret's value."""


class _Absent:
    """Stands where one side of a difference has no value."""

    def __repr__(self) -> str:
        return "–"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs: its dotted name, and its value before and after (ABSENT where there is none)."""

    field: str
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        """`{field, before, after}`, a missing side left out."""
        out: dict[str, Any] = {"field": self.field}
        if self.before is not ABSENT:
            out["before"] = self.before
        if self.after is not ABSENT:
            out["after"] = self.after
        return out


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """The one JSON spelling of `value`: sorted keys, no spaces, UTF-8. Pure."""
    return _encode(value).encode()


def digest(value: Any) -> str:
    """Hash of the canonical JSON of `value`: 32 hex digits of BLAKE2b. Pure."""
    return hashlib.blake2b(canonical(value), digest_size=16).hexdigest()


def differences(before: Facts, after: Facts, *, partial: bool = False) -> tuple[Difference, ...]:
    """What differs from `before` to `after`, field by field, nested mappings by dotted names.

    With `partial`, only the fields that `after` names count: what it leaves out is not asked for. Pure.
    """
    return tuple(_differences(before, after, partial, ""))


def _differences(before: Facts, after: Facts, partial: bool, prefix: str) -> Iterator[Difference]:
    keys = sorted(after) if partial else sorted({*before, *after})
    for key in keys:
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if old == new and type(old) is type(new):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, partial, f"{prefix}{key}.")
        elif old != new or isinstance(old, bool) is not isinstance(new, bool):
            yield Difference(prefix + key, old, new)
