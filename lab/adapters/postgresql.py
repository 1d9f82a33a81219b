"""PostgreSQL: a team's ledger on a server, one schema per lab, its writer's lock bound to the writer's connection."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from lab.adapters.http import loopback
from lab.adapters.postgresql_connection import Connection
from lab.adapters.secrets import resolve
from lab.core.problem import Problems, problem
from lab.ledger import schema, text
from lab.ledger.sqlite import Sqlite

T = TypeVar("T")

_SETTINGS = (
    "SET synchronous_commit = on; SET client_min_messages = warning;"
    " SET tcp_keepalives_idle = 20; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)
"""Commits are durable, and the lock of a host that vanished ends within a minute."""


def _driver() -> Any:
    try:
        import psycopg
    except ImportError:
        raise problem(
            "a ledger in PostgreSQL needs psycopg, which is not installed", do="pip install 'llm-lab[postgresql]'"
        ) from None
    return psycopg


class Server:
    """The schema of one lab in a PostgreSQL database."""

    def __init__(
        self, url: str, password: str, lab_id: str, *, offline: bool = False, tell: Callable[[str], None] = print
    ) -> None:
        self.tell = tell
        self.driver = _driver()
        slug = re.sub(r"[^a-z0-9]+", "_", lab_id.lower()).strip("_")[:48]
        self.schema = f"lab_{slug or 'unnamed'}"
        self.key = int.from_bytes(hashlib.sha256(self.schema.encode()).digest()[:8], "big", signed=True)
        try:
            self._options = self.driver.conninfo.conninfo_to_dict(url)
        except self.driver.Error:
            raise problem(
                "the ledger's address cannot be read", do="write postgresql://USER@HOST:PORT/DATABASE"
            ) from None
        if password:
            self._options["password"] = password
        self._secret = str(self._options.get("password", ""))
        host = str(self._options.get("host") or "localhost")
        self.shown = f"postgresql://{host}:{self._options.get('port', 5432)}/{self._options.get('dbname', '')}"
        if offline and not host.startswith("/") and not loopback(f"http://{host}"):
            raise problem(
                "the ledger is on another host, and the lab is offline",
                why=f"{self.shown} is not this machine",
                do="set `offline: false`, or keep the ledger here",
            )
        self._writer: Connection | None = None

    @classmethod
    def open(cls, settings: Mapping[str, Any], lab_id: str, *, offline: bool, tell: Callable[[str], None]) -> Server:
        """The server that the settings `{url, password}` name; references are resolved only here."""
        url, password = str(settings["url"]), settings.get("password")
        if not url.startswith(("postgresql://", "postgres://")):
            url = resolve(url)
        return cls(url, resolve(password) if password else "", lab_id, offline=offline, tell=tell)

    def name(self, verb: str) -> str:
        """How this process is called in the server's list of connections."""
        return f"lab {verb} of {_who()} on {socket.gethostname()} (pid {os.getpid()})"[:63]

    def connect(self, verb: str = "read") -> Any:
        """A new connection to this lab's schema."""
        options = {"connect_timeout": 10, "tcp_user_timeout": 30_000, **self._options, "client_encoding": "UTF8"}
        made = self.driver.connect(**options, application_name=self.name(verb), autocommit=True)
        made.execute(f'{_SETTINGS}; SET search_path TO "{self.schema}"')
        return made

    @contextlib.contextmanager
    def held(self, verb: str) -> Iterator[None]:
        with self.clear():
            writer = self._lasting(lambda: Connection(self, verb, writing=True))
        self._writer = writer
        try:
            yield
        finally:
            self._writer = None
            writer.end()

    def _lasting(self, work: Callable[[], T]) -> T:
        """What `work` gives; begun anew where the connection it had opened was cut."""
        for pause in (0.1, 0.3):
            try:
                return work()
            except (self.driver.OperationalError, self.driver.InterfaceError):
                time.sleep(pause)
        return work()

    def state(self) -> str:
        def there() -> bool:
            with closing(self.connect()) as db:
                found = db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.schema,)).fetchone()
            return bool(found)

        return "" if self._lasting(there) else "missing"

    def read(self) -> Connection:
        return self._lasting(lambda: Connection(self, "read", writing=False))

    def write(self) -> Connection:
        if self._writer is None:
            raise AssertionError("a ledger is written under its lock")
        self._writer.execute(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"')
        return self._writer

    @contextlib.contextmanager
    def clear(self) -> Iterator[None]:
        try:
            yield
        except self.driver.Error as e:
            raise self.told("the ledger cannot be used", e) from None

    def told(self, summary: str, error: BaseException, do: str = "") -> Problems:
        """The server's words as a problem, without the password."""
        lines = [line for line in str(error).splitlines() if line.strip()]
        said = (lines[0] if lines else type(error).__name__)[:300]
        if self._secret:
            said = said.replace(self._secret, "***")
        do = do or "check that the server runs and that the account may use the database, then run it again"
        return problem(summary, why=f"PostgreSQL says: {said}", file=self.shown, do=do)

    def aside(self) -> str:
        with self.clear(), closing(self.connect()) as db, db.transaction():
            return self._aside(db)

    def _aside(self, db: Any) -> str:
        known = f"SELECT 1 FROM pg_namespace WHERE nspname = '{self.schema}'"  # nosec B608 # letters, digits and _
        if not db.execute(known).fetchone():
            return ""
        name = f"{self.schema[:40]}_damaged_{int(time.time())}_{secrets.token_hex(2)}"
        db.execute(f'ALTER SCHEMA "{self.schema}" RENAME TO "{name}"')
        return f"the schema {name}"

    def save(self, to: Path) -> None:
        with self.clear():
            self._lasting(lambda: self._save(to))

    def _save(self, to: Path) -> None:
        to.unlink(missing_ok=True)
        with closing(self.read()) as live, closing(sqlite3.connect(to, isolation_level=None)) as db:
            copy = Sqlite(db)
            live.look()
            if live.version() != schema.VERSION:
                raise problem("the ledger is of another version", file=self.shown, do="run `lab apply` with that Lab")
            copy.create("")
            copy.begin()
            text.copy(live, copy)
            copy.commit()

    def take(self, source: Path) -> str:
        with (
            self.clear(),
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as held,
            closing(Connection(self, "state restore", writing=False)) as new,
        ):
            new.begin()
            old = self._aside(new)
            new.execute(f'CREATE SCHEMA "{self.schema}"')
            new.fill()
            text.copy(Sqlite(held), new)
            new.version_is(schema.VERSION)
            new.execute(
                "SELECT setval(pg_get_serial_sequence('history', 'id'), coalesce(max(id), 0) + 1, false) FROM history"
            )
            new.commit()
        return old


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
