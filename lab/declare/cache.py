"""Cache: what can be computed again, kept by key under the cache folder; a damaged or foreign file is ignored."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import __version__


def _code() -> int:
    """When this room's code last changed: what other code kept may have another shape. Reads."""
    return max(e.stat().st_mtime_ns for e in os.scandir(Path(__file__).parent) if e.name.endswith(".py"))


FORMAT = f"1 {__version__} {sys.version_info[0]}.{sys.version_info[1]} {_code()}"
Identity = list[int]
"""Device, inode, size, mtime and ctime in ns: what was read of a file stands while this stands."""


def identity(stat: os.stat_result) -> Identity:
    """The identity of a file. Pure."""
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def settled(known: Identity, now_ns: int) -> bool:
    """Whether a file changed long enough ago that another change would show in its times. Pure."""
    changed = max(known[3], known[4])
    coarse = known[3] % 1_000_000_000 == 0
    return now_ns - changed > (2_100_000_000 if coarse else 50_000_000)


class Cache:
    """Named JSON values in one folder; without a folder nothing is found and nothing kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder / "declare" if folder else None
        self._held: dict[str, str] = {}

    def get(self, name: str) -> Any:
        """The value kept under `name`; None where there is none that this version wrote. Reads."""
        if self.folder is None:
            return None
        try:
            kept = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return kept.get("value") if isinstance(kept, dict) and kept.get("format") == FORMAT else None

    def put(self, name: str, value: Any) -> None:
        """Keeps a value, whole or not at all; a folder that cannot be written is no error."""
        if self.folder is not None:
            self._write(name, _text(value))

    def hold(self, name: str, value: Any) -> None:
        """Keeps a value as it is now, once `release` says that all of the lab is sound.

        What is refused may be a secret written out where a reference was expected: it must not stay on the disk.
        """
        if self.folder is not None:
            self._held[name] = _text(value)

    def release(self) -> None:
        """What was held is kept."""
        while self._held:
            self._write(*self._held.popitem())

    def _write(self, name: str, text: str) -> None:
        assert self.folder is not None
        temporary = self.folder / f".{name}.{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(text)
                temporary.replace(self.folder / f"{name}.json")
            finally:
                temporary.unlink(missing_ok=True)


def _text(value: Any) -> str:
    return json.dumps({"format": FORMAT, "value": value}, separators=(",", ":"))


@contextmanager
def uncollected() -> Iterator[None]:
    """The garbage collector rests: a load makes many objects that stay, and walking them again costs a third more."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
