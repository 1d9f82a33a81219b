"""Answers: what servers say, held against what their protocols promise before anything goes by it."""

from __future__ import annotations

import urllib.parse
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lab.adapters import http
from lab.core.problem import problem

Size = Annotated[int, Field(strict=True, ge=0, lt=1 << 60)]
T = TypeVar("T")


def _address(text: str) -> str:
    urllib.parse.urlsplit(text)  # ValueError where it is none
    return text


Url = Annotated[str, AfterValidator(_address)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Lfs(_Answer):
    """A file that the hub keeps with LFS."""

    oid: str = ""
    size: Size | None = None


class Entry(_Answer):
    """One line of a hub's tree."""

    type: str = "file"
    path: str
    size: Size | None = None
    oid: str | None = None
    lfs: Lfs | None = None


class ScopeFile(_Answer):
    """One line of ModelScope's list."""

    Path: str
    Size: Size
    Sha256: str | None = None
    Revision: str | None = None
    Type: str | None = None


class Layer(_Answer):
    """One layer of an Ollama manifest."""

    mediaType: str
    digest: str
    size: Size


class Manifest(_Answer):
    """An Ollama manifest."""

    layers: list[Layer]


class Asset(_Answer):
    """One file of a release."""

    name: str
    browser_download_url: Url
    url: Url | None = None
    size: Size | None = None
    digest: str | None = None


class Release(_Answer):
    """A release."""

    tag_name: str | None = None
    assets: list[Asset] = []


class Download(_Answer):
    """Where an LFS server keeps an object."""

    href: Url
    header: dict[str, str] | None = None


def told(kind: type[T] | Any, value: Any, url: str) -> T:
    """`value` as what the protocol promises; a Problem that names the first thing that is otherwise."""
    try:
        found: T = TypeAdapter(kind).validate_python(value)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, first["loc"])) or "the answer"
        raise problem(
            f"{http.shown(url)} does not answer as its protocol says",
            why=f"{at}: {first['msg']}"[:200],
            do="check the endpoint's address, or try again later",
        ) from None
    return found
