"""Place: where a ledger is kept, and the few statements a database must take to hold one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from lab.core.problem import Problems

RESTORE = "restore it with `lab state restore`, or adopt what is there with `lab import --all`"


class Rows(Protocol):
    """What a statement gave."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """The tables of one open ledger. Statements are plain SQL with `?`, which every place takes alike."""

    def execute(self, sql: str, arguments: Sequence[Any] = ..., /) -> Rows: ...
    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any: ...

    def begin(self) -> None:
        """A transaction is open: others cannot write."""

    def commit(self) -> None:
        """What was written since `begin` is durable."""

    def rollback(self) -> None:
        """Nothing was written since `begin`; says nothing where that cannot be told any more."""

    def version(self) -> int:
        """The schema's version."""

    def tables(self) -> set[str]:
        """The names of the tables that are there; empty where nothing was ever written."""

    def create(self, lab_id: str) -> None:
        """The tables of the current version are there, all or none."""

    def migrate(self, script: str, version: int) -> None:
        """The tables are those of `version`, all or none."""

    def check(self) -> list[str]:
        """What the database itself finds wrong with its pages."""

    def fold(self) -> None:
        """What lies beside the ledger's own file is in it."""

    def look(self) -> None:
        """Until `rollback`, everything read is of one moment."""

    def close(self) -> None:
        """The connection is closed."""


class Place(Protocol):
    """Where one lab's ledger is kept: a file, or a schema on a server."""

    @property
    def shown(self) -> str:
        """The place in words for people; never a password."""

    def held(self, verb: str) -> AbstractContextManager[None]:
        """Nobody else writes there inside, wherever they are; a Problem where somebody does."""

    def state(self) -> str:
        """`missing`, `empty` or, where something is, "". Reads."""

    def read(self) -> Database:
        """Open for reading."""

    def write(self) -> Database:
        """Open for writing; made where it was missing, still without tables."""

    def clear(self) -> AbstractContextManager[None]:
        """The database's words inside become a problem a person can act on."""

    def aside(self) -> str:
        """What is there is kept under another name, which is returned; the place is missing now."""

    def save(self, to: Path) -> None:
        """A consistent copy lies at `to` as an SQLite file, whoever writes meanwhile."""

    def take(self, source: Path) -> str:
        """The ledger is what the SQLite file at `source` holds; returns where the one before it was put aside."""


def damaged(what: str, place: Place) -> Problems:
    """A problem that says what of a ledger cannot be read."""
    from lab.core.problem import problem

    return problem(f"the ledger is damaged: {what}", file=place.shown, do=RESTORE)


def aside_name(path: Path) -> Path:
    """A free name beside `path` for what is put aside. Reads."""
    import time

    name = f"{path.stem}-damaged-{int(time.time())}"
    found, n = path.with_name(name + path.suffix), 1
    while found.exists():
        n += 1
        found = path.with_name(f"{name}-{n}{path.suffix}")
    return found
