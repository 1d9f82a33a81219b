"""Content: hashes of files and trees of the repository, computed once while a file stands."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Any

from lab.declare.cache import Cache, identity, settled

SKIP = frozenset({".git", "__pycache__", ".DS_Store", ".venv", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"})
"""Names that are no content: what tools leave behind."""


class Contents:
    """SHA-256 by path, kept by the identity of each file. Reads."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._kept: dict[str, Any] | None = None
        self._fresh: dict[str, Any] = {}
        self._asked: dict[str, str] = {}

    def hash(self, path: str) -> str:
        """Hex SHA-256 of a file, or of a tree's names, kinds and hashes; empty where there is nothing to read."""
        if path not in self._asked:
            try:
                self._asked[path] = self._tree(path) if os.path.isdir(path) else self._file(path, os.stat(path))
            except OSError:
                self._asked[path] = ""
        return self._asked[path]

    def keep(self) -> None:
        """Puts the hashes that were computed anew into the cache."""
        if self._fresh:
            kept = {p: k for p, k in (self._kept or {}).items() if os.path.lexists(p)}
            self._cache.put("contents", {**kept, **self._fresh})
            self._kept, self._fresh = None, {}

    def _file(self, path: str, status: os.stat_result) -> str:
        if self._kept is None:
            self._kept = self._cache.get("contents") or {}
        now = identity(status)
        known = self._fresh.get(path) or self._kept.get(path)
        if known and known[0] == now:
            return str(known[1])
        with open(path, "rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        if settled(now, time.time_ns()):
            self._fresh[path] = [now, found]
        return found

    def _tree(self, path: str) -> str:
        whole = hashlib.sha256()
        for name in sorted(os.listdir(path)):
            if name in SKIP or name.endswith(".pyc"):
                continue
            inner = os.path.join(path, name)
            status = os.lstat(inner)
            if stat.S_ISLNK(status.st_mode):
                line = f"l {os.readlink(inner)}"
            elif stat.S_ISDIR(status.st_mode):
                line = f"d {self._tree(inner)}"
            elif stat.S_ISREG(status.st_mode):
                line = f"{'x' if status.st_mode & 0o100 else 'f'} {self._file(inner, status)}"
            else:
                continue
            whole.update(f"{name}\0{line}\0".encode(errors="surrogateescape"))
        return whole.hexdigest()
