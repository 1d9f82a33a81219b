"""Run rules: what an experiment may take, when it may stop, and which of its checkpoints stay, as YAML says them."""

from __future__ import annotations

from typing import Annotated, Literal, Required

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from lab.core.exact import Figure, Whole
from lab.core.units import parse_size

Count = Annotated[Whole, Field(ge=1)]


def _bytes(value: int | str) -> int | str:
    if isinstance(value, str):
        parse_size(value)
    elif value < 0:
        raise ValueError(f"{value} is no size: expected a number of bytes, or one with MB, GB or GiB")
    return value


class Resources(TypedDict, total=False):
    """What a run may take."""

    memory: Annotated[Whole | str, AfterValidator(_bytes)]
    """It begins when so much is free, and ends above it: `8GB`."""
    cores: Count
    """CPU cores."""
    accelerator: Literal["metal", "cuda"]
    """What it computes on."""
    cards: Annotated[Whole, Field(ge=0)]
    """Cards of its own."""


class Stop(TypedDict, total=False):
    """When a run may stop early."""

    metric: str
    """What it is judged by."""
    goal: Literal["min", "max"]
    """Which way is better; `min` without it."""
    patience: Count
    """Points without an improvement."""
    delta: Annotated[Figure, Field(ge=0)]
    """How much counts as one."""
    target: Figure
    """A value that is good enough."""


class Best(TypedDict, total=False):
    """Which checkpoint is the best."""

    metric: Required[str]
    """What it is judged by."""
    goal: Literal["min", "max"]
    """Which way is better; `min` without it."""


class Keep(TypedDict, total=False):
    """Which checkpoints stay."""

    last: Annotated[Whole, Field(ge=0)]
    """The newest."""
    every: Count
    """Those whose step is a multiple of it."""
    best: Best
    """The best by a metric."""
