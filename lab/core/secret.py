"""Secret: a reference to a value that is read only when a step needs it; and addresses that hold none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, GetCoreSchemaHandler
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


# --- references, wherever a declaration has them --------------------------------------------------------------------


def references(value: Any) -> Iterator[Secret]:
    """Every reference in a declaration's fields that are typed so. Pure."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, BaseModel):
        for name in _fields(type(value)):
            yield from references(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from references(inner)


@cache
def _fields(model: type[BaseModel]) -> tuple[str, ...]:
    """The fields of a model that may hold a reference."""
    return tuple(n for n, f in model.model_fields.items() if _may(f.annotation, set()))


def _may(annotation: Any, seen: set[Any]) -> bool:
    if annotation is Secret:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        return any(_may(f.annotation, seen) for f in annotation.model_fields.values())
    return any(_may(arg, seen) for arg in get_args(annotation))


# --- addresses, which hold no password ------------------------------------------------------------------------------

_USER = re.compile(r"://[^/\s@]*:[^/\s@]+@")
"""`user:password@`."""
_TOKEN = re.compile(r"://(?:gh[pousr]_|github_pat_|glpat-|hf_|dapi|xox)[\w.-]*@")
"""A token in the user's place, known by how its maker begins it."""
_CHANNEL = re.compile(r"://[^\s?]*/t/[^/\s]+/")
"""conda's `/t/TOKEN/`."""
_QUERY = re.compile(
    r"[?&](?:x-amz-(?:signature|security-token)|x-goog-signature|signature|sig|(?:access_|auth_|api_|private_)?token"
    r"|api_?key|password|passwd|secret)=[^&\s]",
    re.I,
)
"""A signed or keyed query."""


def clean(value: str) -> str:
    """`value`, where it holds no password, token or signature; else ValueError (the text is not repeated). Pure."""
    if "://" in value and any(p.search(value) for p in (_USER, _TOKEN, _CHANNEL, _QUERY)):
        raise ValueError(
            "a password, token or signed query does not belong here: everything under conf/ is committed, locked and "
            "recorded; declare it as a secret reference, or keep it in ~/.netrc or the tool's own settings"
        )
    return value


Place = Annotated[str, AfterValidator(clean)]
"""A path, name or address that was seen to hold no password."""
