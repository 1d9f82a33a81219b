"""Stage: what one resource's steps are given besides themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.apply.events import Event, Tell, silent
from lab.core.facts import Facts
from lab.core.masking import know, masked
from lab.core.step import Cancelled


@dataclass(frozen=True, slots=True)
class Places:
    """Where a lab keeps what steps touch."""

    root: Path
    state: Path
    store: Path
    offline: bool = False
    stage: str = ""


@dataclass
class Work:
    """The stage of one resource; see `lab.core.step.Stage`."""

    address: str
    places: Places
    resolve: Callable[[str], str]
    note: Callable[[str, str], None]
    tell: Tell = silent
    cancel: threading.Event = field(default_factory=threading.Event)
    outcome: Facts = field(default_factory=dict)
    promised: int = 0
    """Bytes of memory that the step in hand was let in for; 0 where it asked for none."""
    waited: float = 0.0
    """Seconds its steps stood in a queue: no part of what the work took."""
    _told: float = 0.0

    @property
    def root(self) -> Path:
        """The lab's repository."""
        return self.places.root

    @property
    def state(self) -> Path:
        """The lab's `state/`."""
        return self.places.state

    @property
    def store(self) -> Path:
        """The model store."""
        return self.places.store

    @property
    def offline(self) -> bool:
        """Whether every connection but loopback is refused."""
        return self.places.offline

    @property
    def stage(self) -> str:
        """The lab's stage (dev, test, …); empty where it has none."""
        return self.places.stage

    @property
    def scratch(self) -> Path:
        """This resource's own folder under `state/work/`, made on first use."""
        path = self.places.state / "work" / self.address
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def progress(self, done: float, total: float | None = None, unit: str = "B") -> None:
        """Says how far the step is, ten times a second at most."""
        now = time.monotonic()
        if now - self._told >= 0.1 or done == total:
            self._told = now
            self.tell(Event("progress", self.address, done=done, total=total, unit=unit))

    def say(self, text: str) -> None:
        """One line for the log, with resolved secrets masked."""
        self.tell(Event("say", self.address, text=masked(text)))

    def check(self) -> None:
        """Raises `Cancelled` when the apply is to stop."""
        if self.cancel.is_set():
            raise Cancelled(self.address)

    def secret(self, reference: str) -> str:
        """The value behind a reference; masked from now on."""
        value = self.resolve(reference)
        know(value)
        return value

    def remember(self, path: Path, sha256: str) -> None:
        """Notes the hash of a file just written."""
        self.note(str(path), sha256)
