"""Profile: what is in a dataset's rows: types, nulls, ranges, duplicates; and whether that is as declared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
_NAMES = {bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "object"}


@dataclass
class Column:
    """One column, row by row."""

    types: dict[str, int] = field(default_factory=dict)
    nulls: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    squares: float = 0.0
    numbers: int = 0
    distinct: set[str] = field(default_factory=set)
    repeated: int = 0
    longest: int = 0

    def add(self, value: Any) -> None:
        """One value more."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            self.nulls += 1
            return
        name = _NAMES.get(type(value), type(value).__name__)
        self.types[name] = self.types.get(name, 0) + 1
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.low, self.high = min(self.low, value), max(self.high, value)
            self.total += value
            self.squares += value * value
            self.numbers += 1
        elif isinstance(value, str):
            self.longest = max(self.longest, len(value))
        key = key_of(value)
        if key in self.distinct:
            self.repeated += 1
        else:
            self.distinct.add(key)

    @property
    def type(self) -> str:
        """Its one type; ints among floats are floats; `mixed` otherwise, `null` where all are missing."""
        names = set(self.types)
        if names == {"int", "float"}:
            return "float"
        return names.pop() if len(names) == 1 else "mixed" if names else "null"

    def to_json(self) -> dict[str, Any]:
        """Figures of the column; those that do not apply are left out."""
        out: dict[str, Any] = {"type": self.type, "nulls": self.nulls, "distinct": len(self.distinct)}
        if self.numbers:
            mean = self.total / self.numbers
            out |= {"min": self.low, "max": self.high, "mean": mean}
            out["std"] = math.sqrt(max(0.0, self.squares / self.numbers - mean * mean))
        if self.longest:
            out["longest"] = self.longest
        return out


@dataclass
class Profile:
    """All rows of a dataset."""

    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    duplicates: int = 0
    _seen: set[bytes] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """One row more."""
        for name in row:
            if name not in self.columns:
                self.columns[name] = Column(nulls=self.rows)
        for name, column in self.columns.items():
            column.add(row.get(name))
        self.rows += 1
        key = hashlib.blake2b(key_of(dict(row)).encode(), digest_size=12).digest()
        if key in self._seen:
            self.duplicates += 1
        self._seen.add(key)

    def to_json(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        columns = {n: c.to_json() for n, c in self.columns.items()}
        return {"rows": self.rows, "duplicates": self.duplicates, "columns": columns}


def key_of(value: Any) -> str:
    """A value's one spelling. Pure."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def profile(rows: Iterable[Row]) -> Profile:
    """The profile of rows."""
    found = Profile()
    for row in rows:
        found.add(row)
    return found


def broken(checks: Mapping[str, Any], found: Profile, rows: Iterable[Row] = ()) -> Iterator[str]:
    """What is not as declared, one sentence each. `rows` are needed for `ranges`, `values` and `outliers` only."""
    low, high = _bounds(checks.get("rows"))
    if not low <= found.rows <= high:
        yield f"it has {found.rows} rows, not {_range(low, high)}"
    for name, kind in (checks.get("columns") or {}).items():
        column = found.columns.get(name)
        if column is None:
            yield f"it has no column {name}"
        elif kind and column.type not in (kind, "null") and not (kind == "float" and column.type == "int"):
            yield f"{name} is {column.type}, not {kind}"
    for name in _names(checks.get("not_null")):
        nulls = found.columns[name].nulls if name in found.columns else found.rows
        if nulls:
            yield f"{name} is missing in {nulls} of {found.rows} rows"
    for name in _names(checks.get("unique")):
        if name in found.columns and found.columns[name].repeated:
            yield f"{name} is repeated in {found.columns[name].repeated} rows"
    allowed = checks.get("duplicates")
    if allowed is not None and allowed is not True and found.duplicates > int(allowed or 0):
        yield f"{found.duplicates} rows are duplicates, not at most {int(allowed or 0)}"
    for name, bounds in (checks.get("ranges") or {}).items():
        low, high = _bounds(bounds)
        column = found.columns.get(name)
        if column is not None and column.numbers and (column.low < low or column.high > high):
            yield f"{name} goes from {column.low:g} to {column.high:g}, not {_range(low, high)}"
    yield from _by_row(checks, found, rows)


def _by_row(checks: Mapping[str, Any], found: Profile, rows: Iterable[Row]) -> Iterator[str]:
    values: Mapping[str, Sequence[Any]] = checks.get("values") or {}
    limits = _outliers(checks.get("outliers"), found)
    if not values and not limits:
        return
    strange: dict[str, int] = {}
    far: dict[str, int] = {}
    for row in rows:
        for name, known in values.items():
            if row.get(name) is not None and row[name] not in known:
                strange[name] = strange.get(name, 0) + 1
        for name, (mean, limit) in limits.items():
            value = row.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value - mean) > limit:
                far[name] = far.get(name, 0) + 1
    yield from (f"{n} is none of its values in {count} rows" for n, count in strange.items())
    yield from (f"{n} is an outlier in {count} rows" for n, count in far.items())


def _outliers(rule: Any, found: Profile) -> dict[str, tuple[float, float]]:
    """Column → mean and the largest distance from it; `outliers: 4` means four standard deviations, of every number."""
    if not rule:
        return {}
    asked = dict(rule) if isinstance(rule, Mapping) else dict.fromkeys(found.columns, rule)
    out = {}
    for name, times in asked.items():
        column = found.columns.get(name)
        if column is not None and column.numbers > 2:
            figures = column.to_json()
            out[name] = (figures["mean"], float(times) * figures["std"])
    return out


def _bounds(value: Any) -> tuple[float, float]:
    if value is None:
        return -math.inf, math.inf
    if isinstance(value, Mapping):
        return value.get("min", -math.inf), value.get("max", math.inf)
    if isinstance(value, (list, tuple)):
        low, high = [*value, None, None][:2]
        return -math.inf if low is None else low, math.inf if high is None else high
    return value, value


def _range(low: float, high: float) -> str:
    if low == high:
        return f"{low:g}"
    if high == math.inf:
        return f"at least {low:g}"
    return f"at most {high:g}" if low == -math.inf else f"{low:g} to {high:g}"


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
