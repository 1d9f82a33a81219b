"""PostgreSQL's connection: a ledger's statements, said again on a new connection where the old one broke."""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from lab.core.problem import Problems, problem
from lab.ledger import schema, text

PATIENCE = 60.0
"""Seconds a broken connection is tried again before the work stops."""


class Server(Protocol):
    """What a connection asks of the server it is to."""

    driver: Any
    schema: str
    key: int
    shown: str
    tell: Callable[[str], None]

    def name(self, verb: str) -> str: ...
    def connect(self, verb: str = ...) -> Any: ...
    def told(self, summary: str, error: BaseException, do: str = ...) -> Problems: ...


class Connection:
    """An open ledger on the server. What was not committed when the connection broke is written again on a new one,
    under the same lock; who took the lock meanwhile keeps it, and this work stops."""

    def __init__(self, server: Server, verb: str, *, writing: bool) -> None:
        self._server, self._verb, self._writing = server, verb, writing
        self._guard = threading.RLock()
        self._said: list[tuple[str, str, list[Any] | None]] | None = None
        self._whole = False
        """Whether what is open cannot be taken up on a new connection: reading one moment, or a change without lock."""
        self._mark = ""
        """What the last commit of ours left in `meta`: by it a new connection knows whether a commit arrived."""
        self._broken = (server.driver.OperationalError, server.driver.InterfaceError)
        self._db = server.connect(verb)
        self._pid: int = self._db.info.backend_pid
        if writing:
            self._lock()
            self._mark = self._marked()

    def _lock(self, patience: float = 0) -> None:
        now = time.monotonic()
        until, gone = now + patience, now + 2
        while not self._db.execute("SELECT pg_try_advisory_lock(%s)", (self._server.key,)).fetchone()[0]:
            found = self._holder()
            # A lock that nobody holds was given back a moment ago.
            if time.monotonic() < (until if found else gone):
                time.sleep(0.1)
                continue
            self._db.close()
            who, since, pid = found or ("another lab", "a time unknown", "PID")
            raise problem(
                f"{who} is writing to this lab, since {since}",
                why=f"`lab {self._verb}` needs the ledger to itself; the lock ends with that writer's connection",
                file=self._server.shown,
                do=f"wait for it; if its host is gone for good: SELECT pg_terminate_backend({pid})",
            )

    def _holder(self) -> tuple[str, str, int] | None:
        row = self._db.execute(
            "SELECT a.application_name, to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS'), a.pid FROM pg_locks l"
            " JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (l.classid::bigint << 32 | l.objid::bigint) = %s",
            (self._server.key,),
        ).fetchone()
        return (f"`{str(row[0]).replace(' of ', '` of ', 1)}", row[1], row[2]) if row and row[0] else None

    def execute(self, sql: str, arguments: Sequence[Any] = (), /) -> Any:
        return self._say("execute", sql, list(arguments))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        found = list(rows)
        return self._say("executemany", sql, found) if found else None

    def _say(self, how: str, sql: str, arguments: list[Any] | None) -> Any:
        with self._guard:
            found = self._lasting(lambda: self._send(how, sql, arguments))
            if self._said is not None and not sql.startswith("SELECT"):
                self._said.append((how, sql, arguments))
            return found

    def _send(self, how: str, sql: str, arguments: list[Any] | None) -> Any:
        cursor = self._db.cursor()
        getattr(cursor, how)(*((_marks(sql), arguments) if arguments else (sql,)))
        return cursor

    def _lasting(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, on a new connection where this one broke."""
        while True:
            try:
                return work()
            except self._broken as e:
                if not self._db.closed:
                    raise
                self._again(e)

    def _again(self, error: BaseException, mark: str = "") -> bool:
        """There is a new connection, as far as the old one had come; True where the commit of `mark` had arrived."""
        if self._whole:
            raise error
        until = time.monotonic() + PATIENCE
        told = False
        while True:
            try:
                old = self._pid
                self._db = self._server.connect(self._verb)
                self._pid = self._db.info.backend_pid
                return self._writing and self._resume(error, mark, old)
            except self._broken as e:
                if time.monotonic() > until:
                    raise self._server.told(
                        "the ledger's server went away and did not come back",
                        e,
                        "start it, then run the same command again: what was finished is recorded",
                    ) from None
            if not told:
                self._server.tell("the ledger's server is away; waiting for it")
            told = True
            time.sleep(0.25)

    def _resume(self, error: BaseException, mark: str, old: int) -> bool:
        # The server may not have noticed that the old connection is gone: its lock would stand in our own way.
        self._db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s",
            (old, self._server.name(self._verb)),
        )
        self._lock(patience=5)
        found = self._marked()
        if mark and found == mark:
            return True
        if found != self._mark:
            raise problem(
                "somebody else wrote to the ledger while the connection to it was broken",
                file=self._server.shown,
                do="run the same command again",
            ) from error
        for how, sql, arguments in self._said or ():
            self._send(how, sql, arguments)
        return False

    def _marked(self) -> str:
        if not self._db.execute("SELECT to_regclass('meta')").fetchone()[0]:
            return ""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'mark'").fetchone()
        return str(row[0]) if row else ""

    def begin(self) -> None:
        with self._guard:
            self._said = []
            self._say("execute", "BEGIN", None)
            self._whole = not self._writing

    def look(self) -> None:
        self._say("execute", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", None)
        self._whole = True

    def commit(self) -> None:
        with self._guard:
            mark = secrets.token_hex(8)
            self._say(
                "execute",
                "INSERT INTO meta VALUES ('mark', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [mark],
            )
            while True:
                try:
                    self._db.execute("COMMIT")
                    break
                except self._broken as e:
                    if not self._db.closed:
                        raise
                    if self._again(e, mark):
                        break
            self._mark, self._said, self._whole = mark, None, False

    def rollback(self) -> None:
        with self._guard, contextlib.suppress(self._server.driver.Error):
            self._said, self._whole = None, False
            self._db.execute("ROLLBACK")

    def version(self) -> int:
        row = self.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        return int(row[0]) if row else 0

    def version_is(self, number: int) -> None:
        """The version of the schema is noted; inside a transaction."""
        self.execute(
            "INSERT INTO meta VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [str(number)],
        )

    def tables(self) -> set[str]:
        found = self._lasting(
            lambda: self._db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (self._server.schema,))
        )
        return {name for (name,) in found}

    def fill(self) -> None:
        """The tables of the current version are there; inside a transaction."""
        self.execute(_dialect(schema.TABLES))

    def create(self, lab_id: str) -> None:
        self.begin()
        self.fill()
        self.executemany("INSERT INTO meta VALUES (?, ?)", [("lab", lab_id), ("serial", "0")])
        self.version_is(schema.VERSION)
        self.commit()

    def migrate(self, script: str, version: int) -> None:
        self.begin()
        self.execute(_dialect(script))
        self.version_is(version)
        self.commit()

    def check(self) -> list[str]:
        found = []
        for table in text.ORDER:
            try:
                self.execute(f"SELECT count(*) FROM {table}")  # nosec B608 # a name of ours
            except self._server.driver.DatabaseError as e:
                found.append(f"{table}: {str(e).splitlines()[0]}")
        return found

    def fold(self) -> None:
        """Nothing lies beside a server's tables."""

    def close(self) -> None:
        """The connection ends, unless it holds the lock: then it ends with that."""
        if not self._writing:
            self.end()

    def end(self) -> None:
        """The lock is given back and the connection ends; without a word, the server would notice when it likes."""
        with contextlib.suppress(self._server.driver.Error):
            if self._writing:
                self._db.execute("SELECT pg_advisory_unlock(%s)", (self._server.key,))
        with contextlib.suppress(self._server.driver.Error):
            self._db.close()


def _marks(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _dialect(script: str) -> str:
    """SQLite's words for the tables in PostgreSQL's; text is compared byte by byte, as SQLite does."""
    script = script.replace(" WITHOUT ROWID", "")
    script = script.replace("id INTEGER PRIMARY KEY", "id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
    words = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "TEXT": 'TEXT COLLATE "C"'}
    return re.sub(r"\b(INTEGER|REAL|TEXT)\b", lambda m: words[m[0]], script)
