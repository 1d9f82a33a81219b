"""Broken: guards of Lab taken away, one by one, to show that the campaign would notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def no_intent() -> None:
    """Nothing is recorded before it is touched."""
    from lab.apply.carry import Carrier

    Carrier._intend = lambda self, addresses: None  # type: ignore[method-assign]


def no_record() -> None:
    """A finished change is told to the user and not to the ledger."""
    from lab.apply.carry import Carrier

    Carrier._settle = lambda self, finished: None  # type: ignore[method-assign]


def no_begun() -> None:
    """A record forgets what was begun elsewhere."""
    from lab.apply import carry

    carry._begun = lambda deed: deed.before  # type: ignore[assignment, return-value]


def no_rename() -> None:
    """Files are written in place."""
    from lab.adapters import files

    def put(path: Path, data: bytes, *, mode: int | None = None, **owner: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        path.chmod(0o644 if mode is None else mode)

    files.put = put


def no_sync() -> None:
    """Files take their name before they are on disk."""
    from lab.adapters import files

    class _Os:
        def __getattr__(self, name: str) -> Any:
            import os

            return (lambda fd: None) if name == "fsync" else getattr(os, name)

    files.os = _Os()  # type: ignore[assignment]
