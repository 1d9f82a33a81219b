"""Optuna's journal, with entries that reach the disk together, and a torn end put aside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Journal:
    """A backend of `optuna.storages.JournalStorage` around another: what is said together is written at once.

    The file is the same as without it. What a kill in between loses has been neither told nor acted upon.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._depth = 0
        self._held: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """See `BaseJournalBackend`."""
        found: Iterable[dict[str, Any]] = self._inner.read_logs(log_number_from)
        return found

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See `BaseJournalBackend`; within `together` they wait."""
        self._held += logs
        if not self._depth:
            held, self._held = self._held, []
            self._inner.append_logs(held)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is appended within reaches the file at the end, as one write."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._held and not self._depth:
                self.append_logs([])


def mend(path: Path) -> None:
    """A journal's torn last line (a power cut, a full disk) is put aside, so that the next line begins on its own."""
    try:
        with open(path, "rb+") as f:
            size = f.seek(0, os.SEEK_END)
            if not size:
                return
            back = min(size, 1 << 20)
            f.seek(size - back)
            tail = f.read()
            whole = tail.rfind(b"\n") + 1
            if whole == len(tail):
                return
            with open(path.with_name("journal.torn"), "ab") as kept:
                kept.write(tail[whole:] + b"\n")
            f.truncate(size - back + whole)
            os.fsync(f.fileno())
    except FileNotFoundError:
        return
