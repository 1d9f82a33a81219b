"""Space by overrides: Hydra's own sweep grammar becomes distributions; each form is taken or refused, none guessed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from lab.core.problem import Problem, Problems


@dataclass(frozen=True)
class Words:
    """What the words of a command line say: what is searched and what is fixed, by parameter."""

    space: Mapping[str, Any] = field(default_factory=dict)
    """As `lab.core.space.dimension` reads it."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    added: frozenset[str] = frozenset()
    """Parameters given with `+` or `++`: the experiment need not declare them."""


class _Refused(Exception):
    def __init__(self, why: str, do: str) -> None:
        super().__init__(why)
        self.why, self.do = why, do


def parse(words: Iterable[str]) -> Words:
    """The words as distributions and fixed values; raises Problems with every word that cannot be taken."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    space: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    added: set[str] = set()
    problems = []
    for word in words:
        try:
            found = parser.parse_override(word)
            name = _name(found)
            if name in space or name in fixed:
                raise _Refused(f"{name} is given twice", "give each parameter once")
            if found.is_sweep_override():
                space[name] = _distribution(found)
            else:
                fixed[name] = _steady(found)
            if found.is_add() or found.is_force_add():
                added.add(name)
        except HydraException as e:
            said = str(e).splitlines()[0]
            problems.append(
                Problem(
                    f"`{word}` is not in Hydra's override grammar",
                    why=said,
                    do="quote it for the shell, 'lr=interval(0,1)'; docs/sweeps.md lists the forms",
                )
            )
        except _Refused as e:
            problems.append(Problem(f"`{word}`: {e.why}", do=e.do))
    if problems:
        raise Problems(*problems)
    return Words(space, fixed, frozenset(added))


def _name(found: Any) -> str:
    key = str(found.key_or_group)
    if found.is_delete():
        raise _Refused("a parameter cannot be deleted in a sweep", "change the experiment's `params`")
    if not key:
        raise _Refused("it names no parameter", "write NAME=…")
    if found.package is not None or "/" in key:
        raise _Refused("a config group cannot be searched", "search a parameter whose value chooses among them")
    return key.removeprefix("params.")


def _distribution(found: Any) -> Any:
    from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, RangeSweep

    value = found.value()
    if isinstance(value, Glob) or found.value_type.name == "GLOB_CHOICE_SWEEP":
        raise _Refused("glob() chooses among config groups, not among values", "list the values: choice(a,b)")
    tags = {str(t) for t in getattr(value, "tags", ())}
    if unknown := tags - {"log", "int", "float"}:
        raise _Refused(f"the tag `{min(unknown)}` means nothing here", "use tag(log, …), tag(int, …) or tag(float, …)")
    if isinstance(value, ChoiceSweep):
        if tags:
            raise _Refused("a choice takes no tag", "write choice(a,b)")
        values = [_known(_plain(v)) for v in value.list]
        if any(_mapped(v) for v in values):
            raise _Refused("a choice among mappings is none of whole values", "choose among lists, or among names")
        return values
    if isinstance(value, RangeSweep):
        return _range(value, tags)
    assert isinstance(value, IntervalSweep)
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise _Refused("an interval needs ends that are numbers", "write interval(0,1)")
    if low > high:
        raise _Refused(f"the interval ends at {high}, below {low}, where it begins", f"write interval({high},{low})")
    if "log" in tags and low <= 0:
        raise _Refused(f"a logarithm needs a start above 0, not {low}", "write tag(log, interval(1e-5,1e-2))")
    whole = "int" in tags or (isinstance(low, int) and isinstance(high, int) and "int(" in str(found.input_line))
    if whole and "float" in tags:
        raise _Refused("it is tagged both int and float", "choose one")
    if whole and (low != int(low) or high != int(high)):
        raise _Refused("an int needs whole ends", "write int(interval(1,8))")
    out: dict[str, Any] = (
        {"type": "int", "low": int(low), "high": int(high)}
        if whole
        else {"type": "float", "low": float(low), "high": float(high)}
    )
    return out | ({"log": True} if "log" in tags else {})


def _mapped(value: Any) -> bool:
    return any(map(_mapped, value)) if isinstance(value, list) else isinstance(value, dict)


def _range(value: Any, tags: set[str]) -> Any:
    """Hydra's ranges end before `stop`; ours include both ends."""
    if not value.step:
        raise _Refused("a range needs a step other than 0", "write range(1,5)")
    values = list(value.range())
    if not values:
        raise _Refused("the range is empty", "range(1,5) means 1, 2, 3, 4")
    whole = all(isinstance(v, int) for v in values)
    if not whole:  # Hydra adds the step again and again; here no rounding adds up
        start, by = Decimal(str(value.start)), Decimal(str(value.step))
        values = [float(start + n * by) for n in range(len(values))]
    ascending = sorted(values)
    if "int" in tags and not whole:
        raise _Refused("its values are not whole", "write range(1,5)")
    step = abs(value.step) if whole else float(abs(Decimal(str(value.step))))
    if "log" in tags:
        if whole and step == 1 and "float" not in tags:
            return {"type": "int", "low": ascending[0], "high": ascending[-1], "log": True}
        raise _Refused("a logarithm and steps do not go together", "write tag(log, interval(a,b)), or list the values")
    if whole and "float" not in tags:
        return {"type": "int", "low": ascending[0], "high": ascending[-1], "step": step}
    return {"type": "float", "low": float(ascending[0]), "high": float(ascending[-1]), "step": float(step)}


def _steady(found: Any) -> Any:
    """A fixed value; the same whenever it is read."""
    value = _known(_plain(found.value()))
    if not isinstance(value, str) and str(found.input_line).partition("=")[2].lstrip().startswith("shuffle("):
        raise _Refused("shuffle() of a list gives another order each time", "write the list in the order you want")
    return value


def _known(value: Any) -> Any:
    """Refuses what would have to be resolved first: a trial would be given its text."""
    if isinstance(value, str) and "${" in value:
        raise _Refused(f"the interpolation {value} is not resolved on the command line of a sweep", "write its value")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _known(inner)
    return value


def _plain(value: Any) -> Any:
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    return value
