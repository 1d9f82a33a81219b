"""Steps of the host's kinds, beside `Play`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lab.core.step import Step


@dataclass(frozen=True, slots=True)
class OpenRepository(Step):
    """A repository of snapshots that exists and opens with its password; made where there is none."""

    verb: ClassVar[str] = "open_repository"
    uses: ClassVar[tuple[str, ...]] = ("network",)

    repo: str
    password: str
    """A secret reference; empty for Time Machine."""
    tool: str = "restic"


@dataclass(frozen=True, slots=True)
class Schedule(Step):
    """A command of the lab that runs by itself, by launchd, systemd or cron, for the person who applies.

    `words` follow `lab -C ROOT`; empty `every` means it no longer runs.
    """

    verb: ClassVar[str] = "schedule"

    name: str
    every: str = ""
    words: tuple[str, ...] = field(default=())
