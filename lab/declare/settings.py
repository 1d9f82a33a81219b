"""Settings: the keys of the head (`conf/lab.yaml`, host and profile) and what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lab.core.address import Address


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LabSettings(_Block):
    """The lab itself."""

    name: str = Field(min_length=1)
    """What the lab is called."""
    id: str = Field(min_length=8)
    """Its identity for life, made by `lab init`; stamped into store and ledger."""
    store: str = "~/lab-store"
    """Where models live; `~` is the home, a relative path starts at the repository."""
    description: str = ""
    """What it is for, in a line."""
    owner: str = ""
    """Whose lab it is."""


class ApplySettings(_Block):
    """What `lab apply` insists on."""

    require: Literal["", "clean", "merged"] = ""
    """`clean` refuses a dirty tree, `merged` an unmerged commit."""
    capacities: Mapping[str, int] = {}
    """How much may run side by side: network, cpu, memory, ansible."""


class Moved(_Block):
    """A resource that has another name now."""

    from_: Address = Field(alias="from")
    """Its old address."""
    to: Address
    """Its new address."""


class Settings(_Block):
    """Every key the head may have besides kinds and groups of the user's own."""

    lab: LabSettings
    """The lab itself."""
    host: Mapping[str, Any] = {}
    """The machine; its file is chosen by `host:` in the defaults list, `auto` reads the machine."""
    resources: Mapping[str, Any] = {}
    """Which resources of each kind are part of the lab: names, globs, `!name` to leave out. Without it, all are."""
    apply: ApplySettings = ApplySettings()
    """What `lab apply` insists on."""
    moved: tuple[Moved, ...] = ()
    """Renamed resources; nothing is rebuilt."""
    offline: bool = False
    """Refuse every connection but loopback."""
    vars: Mapping[str, Any] = {}
    """Values of your own, for `${vars.name}`."""
