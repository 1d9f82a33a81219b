"""Address: `kind.name`, the identity of a resource."""

from __future__ import annotations

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

KIND = re.compile(r"[a-z][a-z0-9_]*")
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")


class Address(str):
    """`kind.name` as one string; a level of a ladder is `kind.name.level`.

    It is a `str`, so that it is its own key in JSON, SQLite and dictionaries.
    """

    __slots__ = ()

    @property
    def kind(self) -> str:
        """The part before the first dot."""
        return self.partition(".")[0]

    @property
    def name(self) -> str:
        """The part after the first dot."""
        return self.partition(".")[2]

    @classmethod
    def of(cls, kind: str, name: str) -> Address:
        """The address of `name` among the resources of `kind`."""
        return cls(f"{kind}.{name}")

    @classmethod
    def parse(cls, text: str) -> Address:
        """`text` as an address; ValueError where it is none."""
        kind, _, name = text.partition(".")
        if not KIND.fullmatch(kind) or not is_name(name):
            raise ValueError(f"{text!r} is no address: expected kind.name")
        return cls(text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())


def is_name(text: str) -> bool:
    """Whether `text` may name a resource: letters, digits, `_`, `-` and inner dots, at most 128 characters."""
    return len(text) <= 128 and ".." not in text and NAME.fullmatch(text) is not None
