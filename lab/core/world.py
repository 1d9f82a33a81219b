"""World: the read-only seam through which kinds observe the machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol


class Depth(IntEnum):
    """How deep an observation looks: `plan` at stats, `lab drift` at every file's stat, `lab verify` at every byte."""

    STAT = 0
    FILES = 1
    BYTES = 2


@dataclass(frozen=True, slots=True)
class Stat:
    """What the file system says of a path, links not followed."""

    type: str
    """`file`, `dir`, `link` or `other`."""
    size: int
    mode: int
    """Permission bits only."""
    uid: int
    gid: int
    identity: tuple[int, int, int, int, int]
    """Device, inode, size, mtime and ctime in ns: a hash stands while this stands."""


class World(Protocol):
    """Reads only. Each method raises `Unknown` where the answer cannot be had; None means "is not there"."""

    depth: Depth

    def stat(self, path: str) -> Stat | None:
        """What is at `path`, not following a last link."""
        ...

    def names(self, path: str) -> list[str] | None:
        """The sorted names in a directory."""
        ...

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """The first `limit` bytes of a file."""
        ...

    def link(self, path: str) -> str | None:
        """Where a link points, as written."""
        ...

    def sha256(self, path: str) -> str | None:
        """Hex SHA-256 of a file. Computed once per identity; anew at depth BYTES."""
        ...

    def volume(self, path: str) -> int | None:
        """Free bytes on the volume that holds `path`; None where the volume is not mounted."""
        ...

    def ask(self, question: str, **details: Any) -> Any:
        """What a named reader (group `lab.observers`) says: accounts, services, tools. JSON values only."""
        ...
