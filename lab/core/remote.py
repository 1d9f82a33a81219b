"""Remote: one file behind a URL, as declarations name it."""

from __future__ import annotations

from pydantic import Field

from lab.core.block import Block
from lab.core.secret import Place


class RemoteFile(Block):
    """One file behind a URL."""

    url: Place = Field(pattern="^(https?|file)://")
    """Where it is: http, https or file."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """The hash it must have."""
    size: int | None = Field(None, ge=0)
    """Its bytes, where known."""
