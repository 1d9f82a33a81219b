"""The real World: reads of this machine, each file hashed once while it stands."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat as stat_
import threading
import time
from pathlib import Path
from typing import Any

from lab.adapters import observer
from lab.core.problem import Problems, Unknown
from lab.core.world import Depth, Stat

_SMALL = 1 << 20
_TICK = 20_000_000
_TYPES = {stat_.S_IFREG: "file", stat_.S_IFDIR: "dir", stat_.S_IFLNK: "link"}


class Hashes:
    """SHA-256 by file identity, kept in `state/cache/`; losing it costs time, never truth.

    The key is device and inode; the hash stands while size, mtime and ctime do.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[tuple[int, ...], tuple[tuple[int, ...], str]] | None = None
        self._new: dict[tuple[int, ...], tuple[tuple[int, ...], str]] = {}
        self._lock = threading.Lock()

    def _load(self) -> dict[tuple[int, ...], tuple[tuple[int, ...], str]]:
        if self._known is None:
            self._known = {}
            if self._path is not None and self._path.exists():
                with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self._path)) as db:
                    rows = db.execute("SELECT device, inode, size, mtime, ctime, sha256 FROM hash")
                    self._known = {(d, i): ((s, m, c), h) for d, i, s, m, c, h in rows}
        return self._known

    def get(self, identity: tuple[int, ...]) -> str | None:
        """The hash of a file that still is what it was."""
        with self._lock:
            known = self._load().get(identity[:2])
        return known[1] if known is not None and known[0] == identity[2:] else None

    def put(self, identity: tuple[int, ...], sha256: str) -> None:
        """Notes a hash; `save` makes it last.

        A small file changed within the clock's last tick is not noted: a second change in that tick would not show in
        its identity (git calls such an entry racy).
        """
        if identity[2] < _SMALL and time.time_ns() - max(identity[3:]) < _TICK:
            return
        with self._lock:
            self._load()[identity[:2]] = self._new[identity[:2]] = (identity[2:], sha256)

    def save(self) -> None:
        """New hashes are in the cache file; a cache that cannot be written is left alone."""
        with self._lock:
            new, self._new = self._new, {}
        if not new or self._path is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=5)) as db, db:
                db.execute("PRAGMA synchronous = OFF")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS hash (device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER,"
                    " ctime INTEGER, sha256 TEXT, PRIMARY KEY (device, inode)) WITHOUT ROWID"
                )
                rows = [(*place, *rest, sha256) for place, (rest, sha256) in new.items()]
                db.executemany("INSERT OR REPLACE INTO hash VALUES (?,?,?,?,?,?)", rows)


class Machine:
    """This machine, read only; see `lab.core.world.World`."""

    def __init__(self, depth: Depth = Depth.STAT, hashes: Hashes | None = None) -> None:
        self.depth = depth
        self.hashes = hashes or Hashes(None)
        self._anew: dict[tuple[int, ...], str] = {}

    def stat(self, path: str) -> Stat | None:
        """What is at `path`, not following a last link."""
        try:
            s = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise Unknown(f"{path}: {e.strerror}") from e
        kind = _TYPES.get(stat_.S_IFMT(s.st_mode), "other")
        identity = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        return Stat(kind, s.st_size, stat_.S_IMODE(s.st_mode), s.st_uid, s.st_gid, identity)

    def names(self, path: str) -> list[str] | None:
        """The sorted names in a directory."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise Unknown(f"{path}: {e.strerror}") from e

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """The first `limit` bytes of a file."""
        try:
            with open(path, "rb") as f:
                return f.read(limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise Unknown(f"{path}: {e.strerror}") from e

    def link(self, path: str) -> str | None:
        """Where a link points, as written."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def sha256(self, path: str) -> str | None:
        """Hex SHA-256 of a file, links followed: once per identity, and once anew at depth BYTES."""
        try:
            s = os.stat(path)
            if not stat_.S_ISREG(s.st_mode):
                return None
            identity = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            known = self._anew.get(identity) if self.depth is Depth.BYTES else self.hashes.get(identity)
            if known is None:
                known = self._anew[identity] = sha256_file(path)
                self.hashes.put(identity, known)
            return known
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as e:
            raise Unknown(f"{path}: {e.strerror}") from e

    def volume(self, path: str) -> int | None:
        """Free bytes on the volume of `path` or of its nearest existing parent; None where a volume is not mounted."""
        at = Path(path)
        while not at.exists() and at != at.parent:
            if at.parent in (Path("/Volumes"), Path("/mnt"), Path("/media")):
                return None
            at = at.parent
        return shutil.disk_usage(at).free

    def ask(self, question: str, **details: Any) -> Any:
        """What the observer of a question says."""
        try:
            return observer(question)(**details)
        except Problems as e:
            raise Unknown(e.problems[0].summary) from e

    def note(self, path: str, sha256: str) -> None:
        """A hash that a performer already knows."""
        with contextlib.suppress(OSError):
            s = os.stat(path)
            self.hashes.put((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns), sha256)


def sha256_file(path: str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb", buffering=0) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
