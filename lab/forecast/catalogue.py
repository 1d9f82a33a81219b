"""Published architectures that Lab knows by name: `catalogue.csv`, with the source of each row.

A name is matched without its organisation and without the words that change nothing about the shape: `instruct`,
`4bit`, a date, a format. What a header, a config or a lock says always wins over the catalogue.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources

from lab.forecast import reading
from lab.forecast.architecture import Architecture

_WORDS = re.compile(
    r"instruct|it|chat|hf|gguf|mlx|qat|base|thinking|reasoning|text|bf16|fp?16|[nm]?v?x?fp[48]|int[48]|\dbits?|gs\d+"
    r"|i?q\d(_.*)?|dwq|awq|gptq|ud|preview|latest|unquantized|dq\w+|meta|google|zai"
)
_DATE = re.compile(r"(25|26|24)\d\d|0\d{3}|1[0-2]\d\d")


def normal(name: str) -> str:
    """The part of a published name that tells its shape: `mlx-community/GLM-4.7-8bit-gs32` → `glm-4.7`. Pure."""
    text = name.rpartition("/")[2].lower().partition(" (")[0].replace(":", "-").replace("_", "-").replace(" ", "-")
    text = re.sub(r"([a-z])(\d)", r"\1\2", text)
    words = [w for w in re.split(r"-+", text) if w and not _WORDS.fullmatch(w) and not _DATE.fullmatch(w)]
    return "-".join(words)


@cache
def _table() -> dict[str, Architecture]:
    table: dict[str, Architecture] = {}
    with resources.files("lab.forecast").joinpath("catalogue.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            arch = reading.from_row({**row, "swa_or_global_overrides": row["overrides"]}).with_(source="catalogue")
            for name in (row["model"], *filter(None, row["aliases"].split("|"))):
                table.setdefault(key(name), arch)
    return table


def key(name: str) -> str:
    """What two spellings of one model's name share. Pure."""
    return re.sub(r"[^a-z0-9.]", "", normal(name)).removeprefix("meta")


def find(name: str) -> Architecture | None:
    """The published architecture of `name`; None where it is not known. Pure."""
    found = _table().get(key(name))
    return found.with_(name=name) if found else None


def names() -> list[str]:
    """Every published name in the catalogue, sorted. Pure."""
    return sorted({a.name for a in _table().values()}, key=str.lower)
