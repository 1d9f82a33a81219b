"""Events: what an apply tells while it runs, for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.core.problem import Problem


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `type` is `begin`, `start`, `progress`, `say`, `done`, `failed`, `skipped` or `end`."""

    type: str
    address: str = ""
    action: str = ""
    text: str = ""
    done: float = 0.0
    total: float | None = None
    unit: str = ""
    seconds: float = 0.0
    problems: tuple[Problem, ...] = ()
    at: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """Non-empty fields by name."""
        return {k: v for k, v in asdict(self).items() if v not in ("", None, 0.0, ()) or k == "type"}


Tell = Callable[[Event], None]


def silent(event: Event) -> None:
    """Tells nobody."""
