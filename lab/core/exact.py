"""Exact: text may stand for a number (`${oc.env:N}` gives no other), a truth value may not, nor a number for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

from pydantic import BeforeValidator
from pydantic_core import CoreSchema, PydanticKnownError, core_schema


def _no_truth(error: str) -> Callable[[Any], Any]:
    def guard(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(error)  # type: ignore[arg-type]
        return value

    return guard


_whole, _number = _no_truth("int_type"), _no_truth("float_type")


def _truth(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticKnownError("bool_type")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number inside a typed dictionary, which guards nothing by itself."""
Figure = Annotated[int | float, BeforeValidator(_number)]
"""Any number there; a whole one stays whole."""
_GUARDS: Mapping[str, Callable[[Any], Any]] = {"int": _whole, "float": _number, "bool": _truth}
_INSIDE = ("schema", "items_schema", "keys_schema", "values_schema", "choices")


def exact(node: Any, owner: type) -> Any:
    """A schema with its numbers and truth values guarded; other models guard their own, a union with both chooses."""
    if isinstance(node, (list, tuple)):
        return type(node)(exact(n, owner) for n in node)
    if not isinstance(node, dict) or (node.get("type") == "model" and node["cls"] is not owner):
        return node
    if guard := _GUARDS.get(node.get("type", "")):
        return core_schema.no_info_before_validator_function(guard, cast(CoreSchema, node))
    if node.get("type") == "union" and any(isinstance(c, dict) and c.get("type") == "bool" for c in node["choices"]):
        return node
    inner = {k: exact(node[k], owner) for k in _INSIDE if k in node}
    if "fields" in node:
        inner["fields"] = {name: exact(field, owner) for name, field in node["fields"].items()}
    return {**node, **inner}
