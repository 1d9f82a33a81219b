"""Exact: text may stand for a number (`${oc.env:N}` gives no other), a truth value may not, nor a number for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

from pydantic import BeforeValidator
from pydantic_core import CoreSchema, PydanticKnownError, core_schema


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _truth(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticKnownError("bool_type")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number inside a typed dictionary, which guards nothing by itself."""
Figure = Annotated[int | float, BeforeValidator(_number)]
"""Any number there; a whole one stays whole."""
_GUARDS: Mapping[str, Callable[[Any], Any]] = {"int": _whole, "float": _number, "bool": _truth}
_INSIDE = ("schema", "items_schema", "keys_schema", "values_schema")


def exact(node: Any, owner: type) -> Any:
    """A schema with its numbers and truth values guarded; unions choose by themselves, other models guard their own."""
    if isinstance(node, list):
        return [exact(n, owner) for n in node]
    if not isinstance(node, dict) or node["type"] == "union" or (node["type"] == "model" and node["cls"] is not owner):
        return node
    if guard := _GUARDS.get(node["type"]):
        return core_schema.no_info_before_validator_function(guard, cast(CoreSchema, node))
    inner = {k: exact(node[k], owner) for k in _INSIDE if k in node}
    if "fields" in node:
        inner["fields"] = {name: exact(field, owner) for name, field in node["fields"].items()}
    return {**node, **inner}
