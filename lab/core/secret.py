"""Secret: a reference to a value that is read only when a step needs it."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

SOURCES = ("env", "file", "keychain", "command")


class Secret(str):
    """A reference, `env:NAME`, `file:PATH`, `keychain:ITEM` or `command:SHELL LINE`; never the value itself.

    The reference is ordinary text and may be shown, stored and digested. Only a performer resolves it.
    """

    __slots__ = ()

    @property
    def source(self) -> str:
        """One of SOURCES."""
        return self.partition(":")[0]

    @property
    def key(self) -> str:
        """What the source is asked for."""
        return self.partition(":")[2]

    @classmethod
    def parse(cls, text: str) -> Secret:
        """`text` as a reference; ValueError where it is none (the text is not repeated: it may be the secret)."""
        source, sep, key = text.partition(":")
        if source not in SOURCES or not sep or not key:
            raise ValueError("expected a secret reference: env:NAME, file:PATH, keychain:ITEM or command:LINE")
        return cls(text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
