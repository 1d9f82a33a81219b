"""Block: the base of what stands in conf/; its fields' docstrings are read only when docs or a schema are made of them.

Pydantic would parse the source at every import, which was a third of a `lab plan`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import CoreSchema

from lab.core.exact import exact


class Block(BaseModel):
    """Part of a file of conf/: frozen, with no other fields than its own, and no value taken for another.

    Infinity and what is no number are refused: no limit, size or time is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast(CoreSchema, exact(handler(source), cls))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        properties = handler.resolve_ref_schema(found)["properties"]
        for field, info in cls.model_fields.items():
            if meaning := meanings(cls).get(field):
                properties[info.alias or field].setdefault("description", meaning)
        return found


@cache
def meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """Field → its docstring, those of the classes it comes from included. Reads the source."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Block):
            found |= dict(_told(each))
    return found


def _told(model: type) -> list[tuple[str, str]]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    except (OSError, TypeError):  # a class without a source
        return []
    return [
        (field.target.id, inspect.cleandoc(text.value.value))
        for field, text in pairwise(getattr(tree, "body", ()))
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    ]
