"""Ledger: the recorded state of a lab in SQLite, durable row by row."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.core.address import Address
from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.record import COLUMNS, Record
from lab.ledger import schema
from lab.ledger.stamp import Stamp, read_stamp, write_stamp

_SELECT = (
    "SELECT address, digest, content, facts, inputs, declaration, uses, profiles, adopted, protect, pending,"
    " generation, at FROM resource"
)
_PUT = "INSERT OR REPLACE INTO resource VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


class Ledger:
    """The ledger of one lab, open for reading or (under the writer's lock) for writing.

    Every method raises `Problems` where the file cannot be read or written; nothing is ever half-written.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection | None, stamps: Sequence[Path]) -> None:
        self.path = path
        self._db = connection
        self._stamps = stamps

    @classmethod
    def read(cls, path: Path, lab_id: str, stamps: Sequence[Path] = ()) -> Ledger:
        """The ledger for reading; an empty one where none was written yet. Never writes, needs no lock."""
        if not path.exists() or path.stat().st_size == 0:
            _refuse_lost(path, lab_id, 0, 0, stamps)
            return cls(path, None, stamps)
        with _clear(path):
            uri = f"file:{_quoted(path)}?mode=ro"
            if not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists():
                uri += "&immutable=1"
            db = sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False)
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                # The first apply was killed before its tables were there: nothing was ever recorded.
                db.close()
                _refuse_lost(path, lab_id, 0, 0, stamps, empty=True)
                return cls(path, None, stamps)
            ledger = cls(path, db, stamps)
            ledger._sound(lab_id)
            return ledger

    @classmethod
    def write(cls, path: Path, lab_id: str, stamps: Sequence[Path] = ()) -> Ledger:
        """The ledger for writing; made where there was none, migrated where it is older. Hold the lock."""
        fresh = not path.exists() or path.stat().st_size == 0
        if fresh:
            _refuse_lost(path, lab_id, 0, 0, stamps)
        with _clear(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if sys.platform == "darwin":
                db.execute("PRAGMA fullfsync = ON")
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                if not fresh:
                    _refuse_lost(path, lab_id, 0, 0, stamps, empty=True)
                schema.create(db, lab_id)
            ledger = cls(path, db, stamps)
            ledger._sound(lab_id)
            schema.migrate(db)
            return ledger

    def close(self) -> None:
        """The file is closed."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _sound(self, lab_id: str) -> None:
        db = self._connection()
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise problem(
                f"the ledger was written by a newer Lab (schema {version}, this Lab knows {schema.VERSION})",
                file=str(self.path),
                do="use that Lab: `lab --version` says which this is",
            )
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "resource" not in tables or "meta" not in tables:
            _refuse_lost(self.path, lab_id, 0, 0, self._stamps, empty=True)
            raise problem("the file is no ledger", file=str(self.path), do=_RESTORE)
        mine = self.meta("lab")
        if mine and lab_id and mine != lab_id:
            raise problem(
                "the ledger belongs to another lab",
                why=f"its id is {mine}, lab.yaml says {lab_id}",
                file=str(self.path),
                do="set lab.id back, or move the ledger away",
            )
        _refuse_lost(self.path, lab_id, self.serial, self.count(), self._stamps)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise problem("nothing was ever applied here", do="run `lab apply`")
        return self._db

    def meta(self, key: str) -> str:
        """A value of the ledger's own, as text; empty where it has none."""
        if self._db is None:
            return ""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    @property
    def serial(self) -> int:
        """How often the ledger was written; a saved plan is stale when it moved."""
        return int(self.meta("serial") or 0)

    def count(self) -> int:
        """How many resources are recorded."""
        return int(self._db.execute("SELECT count(*) FROM resource").fetchone()[0]) if self._db else 0

    def records(self) -> dict[Address, Record]:
        """Every record by address, in order."""
        if self._db is None:
            return {}
        with _clear(self.path):
            rows = self._db.execute(f"{_SELECT} ORDER BY address")
            return {(r := _record(row)).address: r for row in rows}

    def record(self, address: str) -> Record | None:
        """One record."""
        if self._db is None:
            return None
        row = self._db.execute(f"{_SELECT} WHERE address = ?", (address,)).fetchone()
        return _record(row) if row else None

    # --- writing -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable at the end; the serial grows by one."""
        db = self._connection()
        with _clear(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'serial'")
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    def stamp(self) -> None:
        """The store and the state folder know how far this ledger has come, so that its loss is seen."""
        stamp = Stamp(self.meta("lab"), self.serial, self.count())
        for path in self._stamps:
            write_stamp(path, stamp)

    def fold(self) -> None:
        """The write-ahead log is folded into the file, so that a plain copy of the file is the whole ledger."""
        with contextlib.suppress(sqlite3.Error):
            self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

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
                "INSERT OR REPLACE INTO journal VALUES (?,?,?,?,'begun','{}',?,?)",
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
        if self._db is None:
            return {}
        rows = self._db.execute(
            "SELECT step, text, outcome FROM journal WHERE address = ? AND digest = ? AND state = 'done'",
            (address, digest),
        )
        return {n: (text, json.loads(outcome)) for n, text, outcome in rows}

    def forget_steps(self, addresses: Iterable[str]) -> None:
        """The journal of finished resources is cleared; inside a `transaction`."""
        self._connection().executemany("DELETE FROM journal WHERE address = ?", [(a,) for a in addresses])

    def sql(self, query: str, arguments: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a reading query."""
        if self._db is None:
            return []
        with _clear(self.path):
            return self._db.execute(query, tuple(arguments)).fetchall()


_RESTORE = "restore it with `lab state restore`, or adopt what is there with `lab import --all`"


def _refuse_lost(
    path: Path, lab_id: str, serial: int, count: int, stamps: Sequence[Path], *, empty: bool = False
) -> None:
    for where in stamps:
        seen = read_stamp(where)
        if seen is None or (seen.lab != lab_id and lab_id):
            continue
        if seen.serial > serial and seen.resources:
            empty = empty or (path.exists() and path.stat().st_size == 0)
            what = "empty" if empty else "missing" if not path.exists() else f"older than the lab (serial {serial})"
            raise problem(
                f"the ledger is {what}",
                why=f"{where} says it had {seen.resources} resources at serial {seen.serial}; it has {count}",
                file=str(path),
                do=_RESTORE,
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


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextlib.contextmanager
def _clear(path: Path) -> Iterator[None]:
    """SQLite's words become a problem a person can act on."""
    try:
        yield
    except sqlite3.Error as e:
        text = str(e)
        do = _RESTORE
        if "full" in text:
            do = "free some space, then run the same command again: what was finished is recorded"
        elif "readonly" in text or "unable to open" in text:
            do = "check that the folder is writable and mounted"
        elif "locked" in text:
            do = "wait a moment and try again"
        raise problem("the ledger cannot be used", why=f"SQLite says: {text}", file=str(path), do=do) from e
    except OSError as e:
        raise problem("the ledger cannot be opened", why=e.strerror or str(e), file=str(path)) from e


def altered(ledger: Ledger) -> list[Problems]:
    """Problems with the ledger's own pages and rows: what `lab state check` says."""
    found = [
        problem(f"the ledger is damaged: {row[0]}", file=str(ledger.path), do=_RESTORE)
        for row in ledger.sql("PRAGMA integrity_check")
        if row[0] != "ok"
    ]
    sums: Mapping[str, str] = {str(a): str(s) for a, s in ledger.sql("SELECT address, sum FROM resource")}
    for address, record in ledger.records().items():
        if sums.get(address) != record.sum():
            found.append(problem(f"the record of {address} was altered", file=str(ledger.path), do=_RESTORE))
    return found
