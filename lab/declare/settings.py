"""Settings: the keys of the head (`conf/lab.yaml`, host and profile) and what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from lab.core.address import Address
from lab.core.block import Block
from lab.core.quotas import Quota
from lab.core.secret import SOURCES, Place, Secret


class StoreSettings(Block):
    """A store on a volume of its own."""

    path: str
    """Where it lies."""
    tier: str = ""
    """A word that models may choose it by, such as `fast` or `bulk`."""
    models: tuple[str, ...] = ()
    """Globs of the models that live there unless they say otherwise."""


class NetworkSettings(Block):
    """How patient downloads are."""

    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds without a byte before a connection is tried anew."""
    tries: Annotated[int, Field(ge=1)] | None = None
    """Attempts without progress before giving up."""
    connections: Annotated[int, Field(ge=1, le=64)] | None = None
    """Files of one model fetched side by side."""


def _address(value: str) -> str:
    """`value`, where it is a PostgreSQL address without a password, or a reference to one; else ValueError."""
    if value.partition(":")[0] in SOURCES:
        return value
    scheme, found, rest = value.partition("://")
    if not found or scheme not in ("postgresql", "postgres"):
        raise ValueError("write postgresql://USER@HOST:PORT/DATABASE, or a secret reference to it")
    if ":" in rest.rpartition("@")[0] or "password=" in rest:
        raise ValueError("a password does not belong here: write {url: postgresql://USER@HOST/DB, password: env:NAME}")
    return value


class LedgerSettings(Block):
    """A ledger on a PostgreSQL server, for teams."""

    url: Annotated[str, AfterValidator(_address)]
    """`postgresql://USER@HOST:PORT/DATABASE`, or a secret reference to it."""
    password: Secret | None = None
    """A secret reference: `env:NAME`, `file:PATH`, `keychain:ITEM` or `command:LINE`."""


class TrackingSettings(Block):
    """Where runs are tracked besides the local store."""

    uri: Place = Field("", pattern="^(https?://.+)?$")
    """An MLflow server that is fed from the local store; empty for none."""
    project: str = ""
    """MLflow's experiment of every run; empty gives each experiment its own."""
    wandb: Literal["", "offline"] = ""
    """`offline` writes each run as a Weights & Biases directory as well, under `state/wandb/`; nothing is sent."""
    privacy: Literal["", "local_only"] = ""
    """`local_only` refuses every tracker that is not on this machine."""


class LoadingSettings(Block):
    """How scripts are given models."""

    four_bit_above: Annotated[float, Field(gt=0)] = 13e9
    """Unquantized weights of more parameters than this are loaded in 4 bits."""


class LabSettings(Block):
    """The lab itself."""

    name: str = Field(min_length=1)
    """What the lab is called."""
    id: str = Field(min_length=8)
    """Its identity for life, made by `lab init`; stamped into store and ledger."""
    store: str = "~/lab-store"
    """Where models live; `~` is the home, a relative path starts at the repository."""
    stores: Mapping[str, str | StoreSettings] = {}
    """Further stores by name, on other volumes: a path, or a block."""
    envs: str = ""
    """Where environments are installed; by default `envs` in the machine-local state."""
    ledger: LedgerSettings | None = None
    """Where the ledger is kept: by default a file in the machine-local state; for teams a PostgreSQL database."""
    network: NetworkSettings = NetworkSettings()
    """How patient downloads are."""
    loading: LoadingSettings = LoadingSettings()
    """How scripts are given models."""
    tracking: TrackingSettings = TrackingSettings()
    """Where runs are tracked."""
    quotas: Mapping[Annotated[str, Field(pattern=r"^(user|project)\.\S+$")], Quota] = {}
    """`user.NAME` or `project.NAME`, globs too (`user.*` holds for each), → what its runs may take of a host."""
    approvers: Mapping[str, tuple[str, ...]] = {}
    """Role → who has it: one of them must approve a registered model before it is in production."""
    description: str = ""
    """What it is for, in a line."""
    owner: str = ""
    """Whose lab it is."""

    @field_validator("ledger", mode="before")
    @classmethod
    def _by_address(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class ApplySettings(Block):
    """What `lab apply` insists on."""

    require: Literal["", "clean", "merged"] = ""
    """`clean` refuses a dirty tree, `merged` an unmerged commit."""
    capacities: Mapping[str, Annotated[int, Field(ge=1)]] = {}
    """How much may run side by side: network, cpu, memory, ansible."""
    patience: float = Field(30.0, ge=0)
    """Seconds a change waits for the runs that read what it changes, before it is given up and told."""


class Moved(Block):
    """A resource that has another name now."""

    from_: Address = Field(alias="from")
    """Its old address."""
    to: Address
    """Its new address."""


class Settings(Block):
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
    together: tuple[str, ...] = ()
    """Addresses or globs of what is used at the same time: a plan adds up their memory, and refuses what cannot fit."""
    offline: bool = False
    """Refuse every connection but loopback."""
    vars: Mapping[str, Any] = {}
    """Values of your own, for `${vars.name}`."""
