"""SQLite: a ledger in one file, durable at every commit."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from lab.core.problem import problem
from lab.ledger import schema
from lab.ledger.place import RESTORE, aside_name


class File:
    """A ledger's file. Its writers are kept apart by the lock in the same folder (`lock.py`).

    An `aloof` reader leaves SQLite's index of the log alone too, as long as nobody writes: no byte there changes.
    """

    def __init__(self, path: Path, *, aloof: bool = False) -> None:
        self.path = path
        self.aloof = aloof

    @property
    def shown(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def held(self, verb: str) -> Iterator[None]:
        yield

    def state(self) -> str:
        if not self.path.exists():
            return "missing"
        return "" if self.path.stat().st_size else "empty"

    def read(self) -> Sqlite:
        uri = f"file:{_quoted(self.path)}?mode=ro"
        log = self.path.with_name(self.path.name + "-wal")
        at_rest = self.aloof and not (log.exists() and log.stat().st_size)
        if at_rest or (not os.access(self.path.parent, os.W_OK) and not log.exists()):
            uri += "&immutable=1"
        return Sqlite(sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False))

    def write(self) -> Sqlite:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        self.path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if sys.platform == "darwin":
            db.execute("PRAGMA fullfsync = ON")
        return Sqlite(db)

    @contextlib.contextmanager
    def clear(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            text = str(e)
            do = RESTORE
            if "full" in text:
                do = "free some space, then run the same command again: what was finished is recorded"
            elif "disk I/O" in text:
                do = "check its volume (errors, quota, `ulimit -f`), then run the same command again"
            elif "readonly" in text or "unable to open" in text:
                do = "check that the folder is writable and mounted"
            elif "locked" in text:
                do = "wait a moment and try again"
            raise problem("the ledger cannot be used", why=f"SQLite says: {text}", file=self.shown, do=do) from e
        except OSError as e:
            raise problem("the ledger cannot be opened", why=e.strerror or str(e), file=self.shown) from e

    def aside(self) -> str:
        if not self.path.exists():
            return ""
        to = aside_name(self.path)
        # The log first: beside another file it would be taken for that file's own.
        for tail in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + tail).replace(to.with_name(to.name + tail))
        self.path.replace(to)
        return str(to)

    def save(self, to: Path) -> None:
        with closing(sqlite3.connect(self.path)) as live, closing(sqlite3.connect(to)) as copy:
            live.backup(copy)

    def take(self, source: Path) -> str:
        fresh = self.path.with_name("ledger.tmp")
        shutil.copyfile(source, fresh)
        with open(fresh, "rb") as f:
            os.fsync(f.fileno())
        old = self.aside()
        fresh.replace(self.path)
        return old


class Sqlite:
    """An open file. `execute` and `executemany` are the connection's own: nothing stands between."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.execute = connection.execute
        self.executemany = connection.executemany

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")

    def version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def tables(self) -> set[str]:
        return {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def create(self, lab_id: str) -> None:
        name = "'" + lab_id.replace("'", "''") + "'"
        meta = f"INSERT INTO meta VALUES ('lab', {name}), ('serial', '0');"  # nosec B608 # quoted above
        self._db.executescript(f"BEGIN;{schema.TABLES}{meta}PRAGMA user_version = {schema.VERSION};COMMIT;")

    def migrate(self, script: str, version: int) -> None:
        self._db.executescript(f"BEGIN;{script}PRAGMA user_version = {version};COMMIT;")

    def check(self) -> list[str]:
        return [str(text) for (text,) in self._db.execute("PRAGMA integrity_check") if text != "ok"]

    def fold(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def look(self) -> None:
        self._db.execute("BEGIN")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
