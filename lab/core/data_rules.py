"""Data rules: what must hold of a dataset's rows, the steps over them, and what a role may see, as YAML says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from lab.core.exact import Figure, Whole

Names = tuple[str, ...]
Bound = Figure | None
Range = Annotated[tuple[Bound, ...], Field(min_length=1, max_length=2)]
Many = Annotated[Whole, Field(ge=0)]


class Between(TypedDict, total=False):
    """Two ends, both included."""

    min: Figure
    max: Figure


class Checks(TypedDict, total=False):
    """What must hold."""

    rows: Many | Range | Between
    """How many, or `[least, most]`."""
    columns: Mapping[str, str | None]
    """Column → its type; empty for any."""
    not_null: str | Names
    """Columns without holes."""
    unique: str | Names
    """Columns without repetition."""
    ranges: Mapping[str, Figure | Range | Between]
    """Column → `[least, most]`."""
    values: Mapping[str, tuple[Any, ...]]
    """Column → the values it may have."""
    duplicates: bool | Many
    """How many equal rows may be."""
    outliers: Annotated[Figure, Field(gt=0)] | Mapping[str, Annotated[Figure, Field(gt=0)]]
    """Standard deviations from the mean, of every column of numbers or of those named."""
    files: Many | Names
    """How many, or which must be among them."""


class Transform(TypedDict, total=False):
    """One step over the rows."""

    select: Names
    """Columns that stay."""
    drop: Names
    """Columns that go."""
    rename: Mapping[str, str]
    """Old name → new."""
    filter: str
    """Rows that stay: `score > 0.5 and lang in [en, de]`."""
    dedupe: Literal[True] | str | Names
    """Of rows equal in these columns, or in all, the first stays."""
    sample: Annotated[Figure, Field(gt=0)]
    """A share below 1, or so many rows."""
    sort: str
    """The column to sort by; `-name` for the greatest first."""
    fill: Mapping[str, Any]
    """Column → what stands for nothing."""
    map: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    """`package.module:function`, called with each row."""


class Policy(TypedDict, total=False):
    """What a role may see."""

    columns: Names
    """The columns that are shown; without it, all."""
    deny: Names
    """Columns that are left out."""
    mask: Names
    """Columns whose values are replaced by stand-ins."""
    where: str
    """Rows that are shown: `score > 0.5`."""
