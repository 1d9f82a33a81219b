"""Small doubles of Context and Stage, for tests of host kinds that perform for real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.core.address import Address
from lab.core.host import Host
from lab.core.step import Cancelled


def readable() -> None:
    """In a throw-away copy of the machine, every account may run this Python and read Lab's code."""
    here = Path(__file__).parents[2]
    for path in (Path(sys.executable), Path(os.path.realpath(sys.executable)), here / "lab"):
        for above in path.parents:
            above.chmod(above.stat().st_mode | 0o055)
    subprocess.run(["chmod", "-R", "o+rX", str(here / "lab"), str(here / "playbooks")], check=True)


@dataclass
class Context:
    """See `lab.core.kind.Context`."""

    address: str
    root: str
    state: str
    store: str
    home: str = "/root"
    host: Host = field(default_factory=Host)
    offline: bool = False
    lab: Mapping[str, Any] = field(default_factory=lambda: {"name": "studio"})
    lock: Mapping[str, Any] | None = None
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    declarations: dict[str, Any] = field(default_factory=dict)

    def declaration(self, ref: str) -> Any:
        return self.declarations[ref]

    def levels(self, ref: str) -> tuple[Address, ...]:
        return (Address(ref),)

    def digest(self, ref: str) -> str:
        return "digest of " + ref

    def of(self, ref: str) -> Context:
        return self

    def recorded(self, ref: str) -> Mapping[str, Any] | None:
        return self.facts.get(ref)

    def path(self, text: str) -> str:
        if text.startswith("~"):
            return self.home + text[1:]
        return text if text.startswith("/") else f"{self.root}/{text}"

    def content(self, path: str) -> str:
        return "content of " + path

    def text(self, path: str) -> str | None:
        if path in self.texts:
            return self.texts[path]
        return Path(path).read_text() if Path(path).is_file() else None


@dataclass
class Stage:
    """See `lab.core.step.Stage`."""

    address: str
    root: Path
    state: Path
    store: Path
    outcome: Mapping[str, Any] = field(default_factory=dict)
    offline: bool = False
    stage: str = ""
    said: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    cancelled: bool = False

    @property
    def scratch(self) -> Path:
        path = self.state / "work" / self.address
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def progress(self, done: float, total: float | None = None, unit: str = "B") -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled(self.address)

    def secret(self, reference: str) -> str:
        return self.secrets[reference]

    def remember(self, path: Path, sha256: str) -> None: ...
