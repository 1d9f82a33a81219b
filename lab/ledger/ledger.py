"""Ledger: the recorded state of a lab, durable row by row, wherever it is kept."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.core.address import Address
from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.record import COLUMNS, Record
from lab.ledger import schema
from lab.ledger.place import RESTORE, Database, Place, damaged
from lab.ledger.stamp import Stamp, read_stamp, write_stamp

_SELECT = (
    "SELECT address, digest, content, facts, inputs, declaration, uses, profiles, adopted, protect, pending,"
    " generation, at FROM resource"
)
_NAMES = (*_SELECT.removeprefix("SELECT ").removesuffix(" FROM resource").split(", "), "sum")
_EXCLUDED = ", ".join(f"{n} = excluded.{n}" for n in _NAMES[1:])
_PUT = f"INSERT INTO resource VALUES ({','.join('?' * len(_NAMES))}) ON CONFLICT (address) DO UPDATE SET {_EXCLUDED}"  # nosec B608 # names of ours
_BEGIN = "INSERT INTO journal VALUES"
_AGAIN = "ON CONFLICT (address, step) DO UPDATE SET " + ", ".join(  # nosec B608 # names of ours
    f"{n} = excluded.{n}" for n in ("digest", "text", "state", "outcome", "generation", "at")
)


class Ledger:
    """The ledger of one lab, open for reading or (under the writer's lock) for writing.

    Every method raises `Problems` where the file cannot be read or written; nothing is ever half-written.
    """

    def __init__(self, place: Place, database: Database | None, stamps: Sequence[Path]) -> None:
        self.place = place
        self._db = database
        self._stamps = stamps

    @classmethod
    def read(cls, place: Place, lab_id: str, stamps: Sequence[Path] = ()) -> Ledger:
        """The ledger for reading; an empty one where none was written yet. Never writes, needs no lock."""
        with place.clear():
            if word := place.state():
                _refuse_lost(place, lab_id, 0, 0, stamps, word)
                return cls(place, None, stamps)
            db = place.read()
            if not (tables := db.tables()):
                # The first apply was killed before its tables were there: nothing was ever recorded.
                db.close()
                _refuse_lost(place, lab_id, 0, 0, stamps, "empty")
                return cls(place, None, stamps)
            return cls(place, db, stamps)._checked(lab_id, tables)

    @classmethod
    def write(cls, place: Place, lab_id: str, stamps: Sequence[Path] = ()) -> Ledger:
        """The ledger for writing; made where there was none, migrated where it is older. Hold the lock."""
        with place.clear():
            if word := place.state():
                _refuse_lost(place, lab_id, 0, 0, stamps, word)
            db = place.write()
            try:
                if not db.tables():
                    if not word:
                        _refuse_lost(place, lab_id, 0, 0, stamps, "empty")
                    db.create(lab_id)
                ledger = cls(place, db, stamps)._checked(lab_id, db.tables())
                schema.migrate(db)
            except BaseException:
                db.rollback()
                db.close()
                raise
            return ledger

    def close(self) -> None:
        """The ledger is closed."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _checked(self, lab_id: str, tables: set[str]) -> Ledger:
        """Itself, where it is this lab's, of a version we know, and not older than the lab; else closed, and why."""
        try:
            self._sound(lab_id, tables)
        except BaseException:
            self.close()
            raise
        return self

    def _sound(self, lab_id: str, tables: set[str]) -> None:
        version = self._connection().version()
        if version > schema.VERSION:
            raise problem(
                f"the ledger was written by a newer Lab (schema {version}, this Lab knows {schema.VERSION})",
                file=self.place.shown,
                do="use that Lab: `lab --version` says which this is",
            )
        if "resource" not in tables or "meta" not in tables:
            _refuse_lost(self.place, lab_id, 0, 0, self._stamps, "empty")
            raise problem("the file is no ledger", file=self.place.shown, do=RESTORE)
        mine = self.meta("lab")
        if mine and lab_id and mine != lab_id:
            raise problem(
                "the ledger belongs to another lab",
                why=f"its id is {mine}, lab.yaml says {lab_id}",
                file=self.place.shown,
                do="set lab.id back, or move the ledger away",
            )
        _refuse_lost(self.place, lab_id, self.serial, self.count(), self._stamps)

    def _connection(self) -> Database:
        if self._db is None:
            raise problem("nothing was ever applied here", do="run `lab apply`")
        return self._db

    def meta(self, key: str) -> str:
        """A value of the ledger's own, as text; empty where it has none."""
        rows = self.sql("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else ""

    @property
    def serial(self) -> int:
        """How often the ledger was written; a saved plan is stale when it moved."""
        return int(self.meta("serial") or 0)

    def count(self) -> int:
        """How many resources are recorded."""
        return int(self.sql("SELECT count(*) FROM resource")[0][0]) if self._db else 0

    def records(self) -> dict[Address, Record]:
        """Every record by address, in order."""
        if self._db is None:
            return {}
        with self.place.clear():
            rows = self._db.execute(f"{_SELECT} ORDER BY address")
            return {(r := _record(row)).address: r for row in rows}

    def record(self, address: str) -> Record | None:
        """One record."""
        rows = self.sql(f"{_SELECT} WHERE address = ?", (address,))
        return _record(rows[0]) if rows else None

    # --- writing -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Database]:
        """All or nothing, durable at the end; the serial grows by one."""
        db = self._connection()
        with self.place.clear():
            db.begin()
            try:
                yield db
                db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'serial'")
                db.commit()
            except BaseException:
                db.rollback()
                raise

    def stamp(self) -> None:
        """The store and the state folder know how far this ledger has come, so that its loss is seen."""
        stamp = Stamp(self.meta("lab"), self.serial, self.count(), self.place.shown)
        for path in self._stamps:
            write_stamp(path, stamp)

    def fold(self) -> None:
        """What lies beside the ledger's file is folded into it: a plain copy of the file is the whole ledger."""
        self._connection().fold()

    def put(self, records: Iterable[Record]) -> None:
        """Records are written as they are; inside a `transaction`."""
        rows = [
            (*(int(v) if isinstance(v, bool) else v for v in (getattr(r, c) for c in COLUMNS)), r.sum())
            for r in records
        ]
        self._connection().executemany(_PUT, rows)

    def drop(self, addresses: Iterable[str]) -> None:
        """Records are forgotten; inside a `transaction`."""
        gone = [(a,) for a in addresses]
        self._connection().executemany("DELETE FROM resource WHERE address = ?", gone)
        self._connection().executemany("DELETE FROM journal WHERE address = ?", gone)

    def log(self, generation: int, entries: Iterable[tuple[str, str, str, str, str]]) -> None:
        """History rows (address, action, reason, digest before, digest after); inside a `transaction`."""
        now = time.time()
        self._connection().executemany(
            "INSERT INTO history (generation, address, action, reason, before, after, at) VALUES (?,?,?,?,?,?,?)",
            [(generation, *entry, now) for entry in entries],
        )

    # --- the journal of steps ----------------------------------------------------------------------------------

    def begin_step(self, address: str, step: int, digest: str, text: str, generation: int) -> None:
        """A step's intent is on disk before it acts."""
        with self.transaction() as db:
            db.execute(
                f"{_BEGIN} (?,?,?,?,'begun','{{}}',?,?) {_AGAIN}",
                (address, step, digest, text, generation, time.time()),
            )

    def end_step(self, address: str, step: int, outcome: Facts) -> None:
        """A step's outcome is on disk: it will not be repeated for the same digest."""
        with self.transaction() as db:
            db.execute(
                "UPDATE journal SET state = 'done', outcome = ?, at = ? WHERE address = ? AND step = ?",
                (json.dumps(dict(outcome), sort_keys=True), time.time(), address, step),
            )

    def finished_steps(self, address: str, digest: str) -> dict[int, tuple[str, Facts]]:
        """Step number → (its text, its outcome) of the steps already done for this digest."""
        rows = self.sql(
            "SELECT step, text, outcome FROM journal WHERE address = ? AND digest = ? AND state = 'done'",
            (address, digest),
        )
        return {n: (text, json.loads(outcome)) for n, text, outcome in rows}

    def forget_steps(self, addresses: Iterable[str]) -> None:
        """The journal of finished resources is cleared; inside a `transaction`."""
        self._connection().executemany("DELETE FROM journal WHERE address = ?", [(a,) for a in addresses])

    def faults(self) -> list[str]:
        """What the database itself finds wrong with its pages."""
        return self._db.check() if self._db else []

    def sql(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a reading query."""
        if self._db is None:
            return []
        with self.place.clear():
            return self._db.execute(query, tuple(arguments)).fetchall()


def _refuse_lost(place: Place, lab_id: str, serial: int, count: int, stamps: Sequence[Path], word: str = "") -> None:
    for where in stamps:
        seen = read_stamp(where)
        if seen is None or (seen.lab != lab_id and lab_id):
            continue
        if seen.serial > serial and seen.resources:
            other = seen.ledger or place.shown
            if other != place.shown and Path(other).parent == where.parent:
                raise problem(
                    "the ledger of this lab is still in a file, and is missing here",
                    why=f"{other} holds {seen.resources} resources at serial {seen.serial}",
                    file=place.shown,
                    do="bring it here: `lab state export FILE` without `ledger:`, then `lab state import FILE` with it",
                )
            if other != place.shown and Path(other).is_file():
                raise problem(
                    "the store belongs to another checkout of this lab",
                    why=f"{where} was written by {other}, which is still there; two ledgers would disagree",
                    file=place.shown,
                    do=f"work in {Path(other).parents[1]}, or give this one a store of its own (LAB_STORE=DIR)",
                )
            raise problem(
                f"the ledger is {word or f'older than the lab (serial {serial})'}",
                why=f"{where} says it had {seen.resources} resources at serial {seen.serial}; it has {count}"
                + (f" ({other}, which wrote that, is gone)" if other != place.shown else ""),
                file=place.shown,
                do=RESTORE,
            )


def _record(row: Sequence[Any]) -> Record:
    address, digest, content, facts, inputs, declaration, uses, profiles, adopted, protect, pending, generation, at = (
        row
    )
    return Record(
        Address(address),
        digest,
        content,
        facts,
        inputs,
        declaration,
        uses,
        profiles,
        bool(adopted),
        bool(protect),
        bool(pending),
        generation,
        at,
    )


def altered(ledger: Ledger) -> list[Problems]:
    """Problems with the ledger's own pages and rows: what `lab state check` says."""
    with ledger.place.clear():
        found = [damaged(text, ledger.place) for text in ledger.faults()]
    sums: Mapping[str, str] = {str(a): str(s) for a, s in ledger.sql("SELECT address, sum FROM resource")}
    for address, record in ledger.records().items():
        if sums.get(address) != record.sum():
            found.append(problem(f"the record of {address} was altered", file=ledger.place.shown, do=RESTORE))
    return found
