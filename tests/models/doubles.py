"""A stage and a world over a real folder, as small as tests of one adapter need them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.adapters import performer, store
from lab.core.address import Address
from lab.core.facts import digest
from lab.core.host import Host
from lab.core.world import Depth, Stat


@dataclass
class Stage:
    """A stage whose state and store lie under one folder."""

    root: Path
    store: Path
    address: str = "model.m"
    offline: bool = False
    stage: str = ""
    outcome: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    told: list[tuple[float, float | None]] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def scratch(self) -> Path:
        folder = self.state / "work" / self.address
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, done: float, total: float | None = None, unit: str = "B") -> None:
        self.told.append((done, total))

    def say(self, text: str) -> None: ...

    def check(self) -> None: ...

    def secret(self, reference: str) -> str:
        return self.secrets[reference]

    def remember(self, path: Path, sha256: str) -> None:
        self.hashes[str(path)] = sha256


class World:
    """Reads the real machine, without a cache."""

    depth = Depth.STAT

    def stat(self, path: str) -> Stat | None:
        try:
            s = os.lstat(path)
        except FileNotFoundError:
            return None
        kind = {0o100000: "file", 0o040000: "dir", 0o120000: "link"}.get(s.st_mode & 0o170000, "other")
        identity = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        return Stat(kind, s.st_size, s.st_mode & 0o7777, s.st_uid, s.st_gid, identity)

    def names(self, path: str) -> list[str] | None:
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        try:
            with open(path, "rb") as f:
                return f.read(limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def link(self, path: str) -> str | None:
        try:
            return os.readlink(path)
        except OSError:
            return None

    def sha256(self, path: str) -> str | None:
        return store.digest(Path(path)) if os.path.isfile(path) else None

    def volume(self, path: str) -> int | None:
        while not os.path.exists(path):
            path = os.path.dirname(path)
        s = os.statvfs(path)
        return s.f_bavail * s.f_frsize

    def ask(self, question: str, **details: Any) -> Any:
        raise AssertionError(question)


@dataclass
class Context:
    """What one declaration knows."""

    root: str
    store: str
    address: Address = field(default_factory=lambda: Address("model.m"))
    host: Host = field(default_factory=Host)
    offline: bool = False
    lab: dict[str, Any] = field(default_factory=lambda: {"id": "lab1"})
    lock: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return f"{self.root}/state"

    def declaration(self, ref: str) -> Any:
        raise KeyError(ref)

    def of(self, ref: str) -> Any:
        raise KeyError(ref)

    def digest(self, ref: str) -> str:
        return "d" * 32

    def recorded(self, ref: str) -> Any:
        return self.facts.get(ref)

    def path(self, text: str) -> str:
        return os.path.normpath(os.path.join(self.root, os.path.expanduser(text)))

    def content(self, path: str) -> str:
        file = Path(path)
        if file.is_dir():
            return digest([store.digest(f) for f in sorted(file.rglob("*")) if f.is_file()])
        return store.digest(file) if file.is_file() else ""

    def text(self, path: str) -> str | None:
        return None


def perform(step: Any, stage: Stage) -> Any:
    """What the step's performer returns."""
    return performer(step.verb)(step, stage)
