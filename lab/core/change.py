"""Change: what the plan says of one resource."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lab.core.address import Address
from lab.core.facts import Difference, Facts
from lab.core.forecast import NOTHING, Forecast


class Action(StrEnum):
    """The words of a plan."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DESTROY = "destroy"
    ADOPT = "adopt"
    MOVE = "move"
    RERUN = "rerun"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Change:
    """One resource's change, with its reason; `none` is a change too."""

    address: Address
    action: Action
    reason: str = ""
    """Why, in one line: `type: Q4_K_M → Q6_K`, `its model changes`, `no longer declared`."""
    fields: tuple[Difference, ...] = ()
    """What the declaration changes, recorded → wanted."""
    drift: tuple[Difference, ...] = ()
    """What the world changed, recorded → observed."""
    gone: bool = False
    """Whether the resource is recorded but was not found."""
    unknown: str = ""
    """Why it could not be observed; empty when it was."""
    maybe: bool = False
    """Whether apply stops here if what it needs turns out to have equal content (early cut-off)."""
    release: bool = False
    """For destroy: it had been adopted, so it is only forgotten, never removed."""
    wanted: Facts | None = None
    recorded: Facts | None = None
    observed: Facts | None = None
    digest: str = ""
    """Input digest of what is wanted; empty for destroy."""
    moved_from: Address | None = None
    requires: tuple[Address, ...] = ()
    """What must be finished before: what it needs, or for destroy what needs it."""
    forecast: Forecast = field(default=NOTHING)
    where: str = ""
    """`conf/quantization/tiny_lm_q4.yaml:3`."""

    @property
    def word(self) -> str:
        """The action as people call it: a repair is an update that only drift asks for; a release is a soft destroy."""
        if self.release and self.action is Action.DESTROY:
            return "release"
        if self.drift and not self.fields and self.action in (Action.UPDATE, Action.REPLACE) and not self.maybe:
            return "repair"
        return str(self.action)

    def to_json(self) -> dict[str, Any]:
        """As documented in `docs/plan-schema.json`."""
        drift = [d.to_json() for d in self.drift]
        out: dict[str, Any] = {
            "address": self.address,
            "action": str(self.action),
            "reason": self.reason,
            "fields": [d.to_json() for d in self.fields],
            "drift": drift,
            "forecast": self.forecast.to_json(),
            "requires": list(self.requires),
            "digest": self.digest,
            "where": self.where,
        }
        for name in ("gone", "unknown", "maybe", "release", "moved_from"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        return out if self.word == self.action else out | {"word": self.word}
