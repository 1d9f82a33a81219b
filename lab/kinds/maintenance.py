"""maintenance: what keeps the machine well, and when it is due."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lab.core.block import Block
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.kind import Context, Declaration
from lab.core.schedule import PATTERN
from lab.core.stages import short
from lab.core.step import Remove, Step, Write
from lab.core.steps_host import Schedule
from lab.core.units import parse_size
from lab.core.world import World

Every = Literal["daily", "weekly", "monthly", "quarterly", "yearly"]


class Logs(Block):
    """How logs below `state/log` are kept."""

    size: str = "10MB"
    """From this size on a log is packed and begun anew."""
    keep: int = Field(default=5, ge=1)
    """Packed ones that stay of each."""

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        parse_size(value)
        return value


class Maintenance(Declaration):
    """Updates in a window, encryption watched, logs rotated, and a calendar of what is due.

        maintenance/host.yaml:  window: "sun 04:00"   updates: report   tasks: {review docs: quarterly}

    Destroying it removes the timer and the settings; the log of what was done stays.
    """

    kind: ClassVar[str] = "maintenance"

    window: str = ""
    """When upkeep runs by itself: `sun 04:00`, `03:30`, `weekly`; empty: only when asked."""
    updates: Literal["off", "report", "install"] = "report"
    """What is done about packages and the system that could be newer. macOS only reports: it asks for a credential."""
    held: tuple[str, ...] = ()
    """Packages that are never updated."""
    encryption: Literal["off", "report", "required"] = "report"
    """Whether the disk of the system must be encrypted; it is never switched on silently."""
    free: str = "10GB"
    """Below this much free space, where `state/` or the store lies, something is to be cleaned up."""
    clean: Literal["report", "take"] = "report"
    """What upkeep does then: `report` suggests, `take` runs `lab gc` and empties Lab's own cache. Nothing else goes."""
    logs: Logs = Logs()
    """How logs are kept."""
    tasks: Mapping[str, Every] = {
        "updates": "weekly",
        "disk": "weekly",
        "encryption": "monthly",
        "logs": "weekly",
        "backup check": "monthly",
        "knowledge tidy": "weekly",
        "core docs and health check": "monthly",
        "all docs": "quarterly",
    }
    """What is to be done how often; a name Lab does not know is a reminder for you."""

    @field_validator("window")
    @classmethod
    def _window(cls, value: str) -> str:
        if value and not re.fullmatch(PATTERN, value):
            raise ValueError("expected hourly, daily, weekly, monthly, 03:30 or sun 04:00")
        return value

    @field_validator("free")
    @classmethod
    def _free(cls, value: str) -> str:
        parse_size(value)
        return value

    def claims(self, context: Context) -> tuple[str, ...]:
        return ("the host's maintenance",)

    def settings(self) -> dict[str, Any]:
        """What upkeep goes by, kept beside the ledger. Pure."""
        return {
            "updates": self.updates,
            "held": list(self.held),
            "encryption": self.encryption,
            "free": parse_size(self.free),
            "clean": self.clean,
            "logs": {"size": parse_size(self.logs.size), "keep": self.logs.keep},
            "tasks": dict(self.tasks),
        }

    def file(self, context: Context) -> str:
        """Where the settings are kept. Pure."""
        return f"{context.state}/maintenance/settings.json"

    def job(self, context: Context) -> str:
        """The name of the timer. Pure."""
        return f"lab-{short(context.lab)}-maintenance"

    def wanted(self, context: Context) -> Facts:
        return {**self.settings(), "window": self.window or "never"}

    def observe(self, world: World, context: Context) -> Facts | None:
        raw = world.read(self.file(context))
        window = world.ask("schedule", name=self.job(context))
        if raw is None and window is None:
            return None
        try:
            settings = json.loads(raw) if raw else {}
        except ValueError:
            settings = {"settings": "not readable"}
        return {**settings, "window": window or "never"}

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        if change.action is Action.DESTROY:
            yield Schedule(self.job(context))
            yield Remove(self.file(context))
            return
        yield Write(self.file(context), json.dumps(self.settings(), indent=1, sort_keys=True) + "\n", 0o600)
        yield Schedule(self.job(context), self.window, ("maintenance", "run", "--scheduled"))
