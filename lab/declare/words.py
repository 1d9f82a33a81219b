"""Words: what pydantic found wrong, in Lab's words. Values of secret fields, and long ones, are never repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from typing_extensions import get_type_hints, is_typeddict

from lab.core.problem import did_you_mean
from lab.core.secret import Secret

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a path",
    "date_type": "a date (YYYY-MM-DD)",
    "date_parsing": "a date (YYYY-MM-DD)",
    "date_from_datetime_parsing": "a date (YYYY-MM-DD)",
    "datetime_type": "a date and time",
    "datetime_parsing": "a date and time",
    "datetime_from_date_parsing": "a date and time",
    "time_delta_type": "a duration",
    "time_delta_parsing": "a duration",
    "url_parsing": "a URL",
    "url_type": "a URL",
    "none_required": "nothing",
}
_BOUND = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
_LENGTH = {
    "string_too_short": ("min_length", "at least", "characters"),
    "string_too_long": ("max_length", "at most", "characters"),
    "too_short": ("min_length", "at least", "entries"),
    "too_long": ("max_length", "at most", "entries"),
}


class Fault:
    """One thing wrong with a block: a summary, the path to the field, whether its key is meant, and what to do."""

    __slots__ = ("do", "key", "path", "summary")

    def __init__(self, summary: str, path: tuple[Any, ...], do: str = "", *, key: bool = False) -> None:
        self.summary, self.path, self.do, self.key = summary, path, do, key


def faults(error: ValidationError, model: type[BaseModel], block: Any, name: str) -> list[Fault]:
    """What is wrong with `block`, the value of `name`, one fault per field. Pure."""
    grouped: dict[tuple[Any, ...], list[Any]] = {}
    for item in error.errors(include_url=False):
        path = _path(_as_written(item["loc"], block, model), block, item["type"])
        grouped.setdefault(path, []).append(item)
    out = []
    for path, items in grouped.items():
        longer = any(other[: len(path)] == path and other != path for other in grouped)
        if longer and path and all(i["type"] in _EXPECTED for i in items):
            continue
        out.append(_fault(path, items, model, block, name))
    return out


def _as_written(loc: Sequence[Any], block: Any, model: type[BaseModel]) -> Sequence[Any]:
    if not loc or not isinstance(block, Mapping) or loc[0] in block:
        return loc
    return (getattr(model, "written", {}).get(loc[0], loc[0]), *loc[1:])


def _path(loc: Sequence[Any], block: Any, kind: str) -> tuple[Any, ...]:
    """The part of pydantic's location that the block really has: union members and the like left out."""
    path: list[Any] = []
    node = block
    for i, step in enumerate(loc):
        last = i == len(loc) - 1
        in_list = isinstance(node, (list, tuple)) and isinstance(step, int) and step < len(node)
        if in_list or (isinstance(node, Mapping) and step in node):
            node = node[step]
        elif not (last and kind == "missing"):
            continue
        path.append(step)
    return tuple(path)


def _fault(path: tuple[Any, ...], items: list[Any], model: type[BaseModel], block: Any, name: str) -> Fault:
    item = items[0]
    kind, context = item["type"], item.get("ctx") or {}
    field = ".".join(map(str, path))
    if kind == "extra_forbidden" and path:
        known = _fields(model, path[:-1])
        where = ".".join(filter(None, [name, *map(str, path[:-1])])) or "the head"
        return Fault(f"unknown key `{path[-1]}` in {where}{did_you_mean(str(path[-1]), known)}", path, key=True)
    if kind == "missing":
        return Fault(f"`{field}` is missing{f' in {name}' if name else ''}", path, f"add `{path[-1]}:`", key=True)
    if kind in ("value_error", "assertion_error"):
        said = str(context.get("error") or "the value is not allowed")
        return Fault(f"{f'`{field}`: ' if field else f'{name}: ' if name else ''}{said}", path)
    expected = list(dict.fromkeys(filter(None, (_EXPECTED.get(i["type"]) for i in items))))
    if expected and len(expected) == len({_EXPECTED.get(i["type"], i["type"]) for i in items}):
        return Fault(f"`{field}` must be {' or '.join(expected)}{_given(item, model, path)}", path)
    if kind == "invalid_key":
        return Fault(f"a key in {name} is not text", path, "quote it")
    if kind in ("literal_error", "enum"):
        # Nothing is what one gives by leaving the field out.
        allowed = re.sub("^''(, | or )", "", str(context.get("expected", ""))).replace("'", "`")
        hint = ""
        if isinstance(item.get("input"), str) and not _secret(model, path):
            hint = did_you_mean(item["input"], re.findall(r"`([^`]*)`", allowed))
        return Fault(f"`{field}` must be {allowed}{hint}", path)
    if kind in _BOUND:
        key, words = _BOUND[kind]
        return Fault(f"`{field}` must be {words} {context.get(key)}{_given(item, model, path)}", path)
    if kind in _LENGTH:
        key, words, unit = _LENGTH[kind]
        if context.get(key) == 1 and words == "at least":
            return Fault(f"`{field}` must not be empty", path)
        return Fault(f"`{field}` must have {words} {context.get(key)} {unit}", path)
    if kind == "string_pattern_mismatch":
        return Fault(f"`{field}` must match {context.get('pattern')}{_given(item, model, path)}", path)
    return Fault(f"`{field}` has a value that is not allowed here{_given(item, model, path)}", path)


def _given(item: Mapping[str, Any], model: type[BaseModel], path: tuple[Any, ...]) -> str:
    value = item.get("input")
    if _secret(model, path):
        return ""
    if value is None:
        return ", not empty"
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f", not the number {value}"
    if isinstance(value, str):
        return f", not the text `{value}`" if 0 < len(value) <= 40 and value.isprintable() else ", not text"
    if isinstance(value, Mapping):
        return ", not a mapping"
    return ", not a list" if isinstance(value, (list, tuple)) else ""


def _fields(model: type[BaseModel], path: Sequence[Any]) -> set[str]:
    """The keys that the model or typed dictionary at `path` inside `model` knows, aliases included."""
    here: Any = model
    for step in path:
        found = _annotations(here).get(step)
        here = next(iter(_models(found)), here) if found is not None else here
    return set(_annotations(here))


def _annotations(model: Any) -> dict[str, Any]:
    if _is_model(model):
        return {f.alias or n: f.annotation for n, f in model.model_fields.items()}
    return get_type_hints(model) if is_typeddict(model) else {}


def _models(annotation: Any) -> list[Any]:
    if _is_model(annotation) or is_typeddict(annotation):
        return [annotation]
    return [m for arg in get_args(annotation) for m in _models(arg)]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _secret(model: type[BaseModel], path: Sequence[Any]) -> bool:
    """Whether the field at the head of `path` may hold a secret, anywhere inside it."""
    if not path:
        return True
    found = next((f for n, f in model.model_fields.items() if path[0] in (n, f.alias)), None)
    return found is None or _holds_secret(found.annotation, set())


def _holds_secret(annotation: Any, seen: set[Any]) -> bool:
    if annotation is Secret:
        return True
    if _is_model(annotation) and annotation not in seen:
        seen.add(annotation)
        return any(_holds_secret(f.annotation, seen) for f in annotation.model_fields.values())
    return any(_holds_secret(arg, seen) for arg in get_args(annotation))
