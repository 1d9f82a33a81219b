"""Space: what a sweep searches: named distributions, some of them only under conditions. Plain values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

from lab.core.problem import did_you_mean

Scalar = str | int | float | bool | None | list[Any]
"""A value to try; of lists, those of such values."""
LISTED = "json:"
"""Begins the text by which a study remembers a list."""
_OTHER = object()
_KEYS = ("low", "high", "step", "log", "type", "choice", "when")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter's distribution: numbers from `low` to `high`, both included, or one of `choices`."""

    name: str
    type: str
    """`float`, `int` or `choice`."""
    low: float | int = 0
    high: float | int = 0
    step: float | int | None = None
    log: bool = False
    choices: tuple[Scalar, ...] = ()
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    """Other parameter → values under which this one is tried; elsewhere the experiment keeps its own value."""

    def count(self) -> int | None:
        """How many values it has; None where they are continuous. Pure."""
        if self.type == "choice":
            return len(self.choices)
        if self.step is None:
            return 1 if self.low == self.high else None
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) / Decimal(str(self.step))) + 1

    def values(self) -> tuple[Scalar, ...]:
        """Its values in order; ValueError where they are continuous. Pure."""
        if self.type == "choice":
            return self.choices
        if (count := self.count()) is None:
            raise ValueError(f"{self.name} is continuous")
        if self.type == "int":
            return tuple(int(self.low) + i * int(self.step or 1) for i in range(count))
        low, step = Decimal(str(self.low)), Decimal(str(self.step or 0))
        return tuple(float(low + i * step) for i in range(count))

    def has(self, value: Any) -> bool:
        """Whether it is one of its values, of which there may be more than could be listed. Pure."""
        if self.type == "choice":
            return value in self.choices
        if not _number(value) or not self.low <= value <= self.high:
            return False
        return not self.step or not (Decimal(str(value)) - Decimal(str(self.low))) % Decimal(str(self.step))

    def to_json(self) -> dict[str, Any]:
        """As `dimension` reads it, in one spelling; without the name. Pure."""
        found: dict[str, Any]
        if self.type == "choice":
            found = {"choice": list(self.choices)}
        else:
            found = {"type": self.type, "low": self.low, "high": self.high}
            found |= {"step": self.step} if self.step is not None else {}
            found |= {"log": True} if self.log else {}
        return found | ({"when": {k: list(v) for k, v in self.when.items()}} if self.when else {})


def dimension(name: str, value: Any) -> Dimension:
    """`value` as YAML gives it; raises ValueError with what to write instead. Pure.

    `[8, 16, 32]`; `{low: 1, high: 4}` (whole numbers, both ends included); `{low: 1e-5, high: 1e-2, log: true}`;
    `{low: 0, high: 1, step: 0.25}`; `{low: 1, high: 4, type: float}`; any of them with `when: {optimizer: sgd}`.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _choice(name, value, {})
    if not isinstance(value, Mapping):
        hint = "the sweep grammar is for the command line; here write [a, b] or {low: …, high: …, log: true}"
        raise ValueError(f"{name} is no distribution: {hint}" if isinstance(value, str) else f"{name}: write [{value}]")
    for key in value:
        if key not in _KEYS:
            raise ValueError(f"{name}: unknown key `{key}`{did_you_mean(str(key), _KEYS)}; it takes {', '.join(_KEYS)}")
    when = _when(name, value.get("when") or {})
    if "choice" in value:
        if extra := [k for k in value if k not in ("choice", "when")]:
            raise ValueError(f"{name}: `{extra[0]}` does not go with `choice`")
        return _choice(name, value["choice"], when)
    for key in ("low", "high"):
        if not _number(value.get(key)):
            raise ValueError(f"{name}: `{key}` must be a number" if key in value else f"{name} needs `{key}`")
    low, high, step, log = value["low"], value["high"], value.get("step"), value.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{name}: `log` is true or false")
    if step is not None and not _number(step):
        raise ValueError(f"{name}: `step` must be a number")
    whole = all(isinstance(v, int) for v in (low, high, *(() if step is None else (step,))))
    kind = value.get("type") or ("int" if whole else "float")
    if kind not in ("int", "float"):
        raise ValueError(f"{name}: `type` is int or float, not {kind}")
    if kind == "int" and not whole:
        raise ValueError(f"{name}: an int needs whole numbers")
    return _range(name, kind, low, high, step, log, when)


def _range(
    name: str, kind: str, low: float, high: float, step: float | None, log: bool, when: Mapping[str, tuple[Scalar, ...]]
) -> Dimension:
    if kind == "int" and max(abs(low), abs(high)) >= 1 << 63:
        raise ValueError(f"{name}: no sampler draws whole numbers beyond 2^63")
    if low > high:
        raise ValueError(f"{name}: low {low} is above high {high}")
    if log and low <= 0:
        raise ValueError(f"{name}: a logarithm needs `low` above 0, not {low}")
    if log and step not in (None, 1 if kind == "int" else None):
        raise ValueError(f"{name}: `log` and `step` do not go together; list the values instead")
    if step is not None and step <= 0:
        raise ValueError(f"{name}: `step` must be above 0")
    if step is not None:
        span, one = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
        try:
            rest = span % one
        except ArithmeticError:
            raise ValueError(f"{name}: `step` {step} is too small for so wide a range") from None
        if rest:
            last = Decimal(str(high)) - rest
            raise ValueError(f"{name}: high {high} is no whole number of steps from low; the last value is {last}")
    if kind == "int":
        return Dimension(name, "int", int(low), int(high), 1 if step is None else int(step), log, (), when)
    return Dimension(name, "float", float(low), float(high), None if step is None else float(step), log, (), when)


def _choice(name: str, values: Any, when: Mapping[str, tuple[Scalar, ...]]) -> Dimension:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{name}: list its values: [a, b]")
    for v in values:
        _triable(name, v)
    values = [_listed(v) for v in values]
    seen: list[Scalar] = []
    for v in values:
        if v in seen:
            twin = seen[seen.index(v)]
            same = type(v) is type(twin)
            raise ValueError(f"{name}: {v!r} is listed twice" if same else f"{name}: {twin!r} and {v!r} are one value")
        seen.append(v)
    return Dimension(name, "choice", choices=tuple(values), when=when)


def _triable(name: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for inner in value:
            _triable(name, inner)
    elif not (value is None or isinstance(value, (str, int, float, bool))):
        raise ValueError(f"{name}: a choice among mappings is none of whole values: choose among lists, or names")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is no value to try")
    elif isinstance(value, str) and value.startswith(LISTED):
        raise ValueError(f"{name}: a text that begins with {LISTED} stands for a list in a study")


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def kept(value: Scalar) -> str | int | float | bool | None:
    """A value as a study keeps it: a list as text, since its storages hold plain values alone. Pure."""
    return LISTED + json.dumps(value) if isinstance(value, list) else value


def taken(value: Any) -> Scalar:
    """The value that a study kept so. Pure."""
    if isinstance(value, str) and value.startswith(LISTED):
        value = json.loads(value.removeprefix(LISTED))
    return cast(Scalar, value)


def _when(name: str, value: Any) -> dict[str, tuple[Scalar, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: `when` maps another parameter to the values under which this one is tried")
    return {str(k): tuple(map(_listed, v)) if isinstance(v, (list, tuple)) else (v,) for k, v in value.items()}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Space:
    """All dimensions of a sweep, each after those it depends on."""

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        by_name = {d.name: d for d in dimensions}
        for d in dimensions:
            for parent, values in d.when.items():
                if parent not in by_name:
                    raise ValueError(
                        f"{d.name}: `when` names {parent}, which is not searched{did_you_mean(parent, by_name)}"
                    )
                above = by_name[parent]
                if above.count() is None:
                    raise ValueError(f"{d.name}: `when` needs a parent with countable values; {parent} is continuous")
                for v in values:
                    if not above.has(v):
                        raise ValueError(
                            f"{d.name}: `when: {{{parent}: {v}}}` never happens; {parent} has no such value"
                        )
        self.dimensions: tuple[Dimension, ...] = tuple(_ordered(by_name))

    @classmethod
    def of(cls, block: Mapping[str, Any]) -> Space:
        """A block of YAML or of `to_json`; raises ValueError with the first thing wrong. Pure."""
        return cls([dimension(str(k), v) for k, v in block.items()])

    def to_json(self) -> dict[str, Any]:
        """Name → distribution, in one spelling. Pure."""
        return {d.name: d.to_json() for d in self.dimensions}

    def draw(self, suggest: Callable[[Dimension], Scalar]) -> dict[str, Scalar]:
        """One point: `suggest` is asked for each dimension that applies, in order."""
        point: dict[str, Scalar] = {}
        for d in self.dimensions:
            if all(p in point and point[p] in allowed for p, allowed in d.when.items()):
                point[d.name] = suggest(d)
        return point

    @property
    def conditional(self) -> bool:
        """Whether some dimensions apply only under conditions."""
        return any(d.when for d in self.dimensions)

    def size(self) -> int | None:
        """How many points it has; None where a dimension is continuous. Pure."""
        if any(d.count() is None for d in self.dimensions):
            return None
        return self._counted({}, 0)

    def _counted(self, point: dict[str, Any], at: int) -> int:
        """How many points begin so: of each dimension only the values that some `when` names are told apart."""
        if at == len(self.dimensions):
            return 1
        d = self.dimensions[at]
        if not all(p in point and point[p] in allowed for p, allowed in d.when.items()):
            return self._counted(point, at + 1)
        named: list[Any] = []
        for v in itertools.chain.from_iterable(child.when.get(d.name, ()) for child in self.dimensions):
            named += [] if v in named else [v]
        found = sum(self._counted({**point, d.name: v}, at + 1) for v in named)
        others = (d.count() or 0) - len(named)
        return found + (others * self._counted({**point, d.name: _OTHER}, at + 1) if others else 0)

    def points(self) -> Iterator[dict[str, Scalar]]:
        """Every point once; ValueError where a dimension is continuous. Pure."""
        if not self.conditional:
            names = [d.name for d in self.dimensions]
            for values in itertools.product(*(d.values() for d in self.dimensions)):
                yield dict(zip(names, values, strict=True))
            return
        yield from self._below({}, 0)

    def _below(self, point: dict[str, Scalar], at: int) -> Iterator[dict[str, Scalar]]:
        if at == len(self.dimensions):
            yield dict(point)
            return
        d = self.dimensions[at]
        if not all(p in point and point[p] in allowed for p, allowed in d.when.items()):
            yield from self._below(point, at + 1)
            return
        for value in d.values():
            yield from self._below({**point, d.name: value}, at + 1)


def _ordered(by_name: Mapping[str, Dimension]) -> Iterator[Dimension]:
    done: set[str] = set()
    left = list(by_name.values())
    while left:
        ready = [d for d in left if done.issuperset(d.when)]
        if not ready:
            raise ValueError(f"{' and '.join(d.name for d in left[:2])} wait for each other in `when`")
        first = ready[0]
        done.add(first.name)
        left.remove(first)
        yield first


def nested(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each dotted name of `over` set in it; other branches are shared. Pure."""
    out = dict(values)
    for name, value in over.items():
        head, _, rest = name.partition(".")
        if not rest:
            out[head] = value
        else:
            inner = out.get(head)
            out[head] = nested(inner if isinstance(inner, Mapping) else {}, {rest: value})
    return out
