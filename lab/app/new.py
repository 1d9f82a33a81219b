"""new: a resource is declared from a recipe: what it leaves open is answered, the rest stays as it was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.adapters.files import put
from lab.app.lab import Lab
from lab.core.address import is_name
from lab.core.problem import Problems, did_you_mean, problem
from lab.declare import shipped
from lab.declare.yaml_edit import edit

_OPEN = re.compile(r"<([a-z_]+)>")
_STANDS_FOR = {
    "model": ("model", "quantization"), "dataset": ("dataset",), "experiment": ("experiment",), "env": ("env",),
    "ladder": ("quantization",),
}  # fmt: skip
"""What a recipe may leave open → the kinds whose resources answer it."""

Ask = Callable[[str, tuple[str, ...]], str]
"""Asks for what is open, given the names that fit; answers with "" where nobody can be asked."""


def recipes(kind: str) -> dict[str, Path]:
    """Name → file of every recipe of a kind that `new` can start from. Reads."""
    folder = shipped.find(f"recipes/{kind}")
    return {p.stem: p for p in sorted(folder.glob("*.yaml"))} if folder else {}


def new(lab: Lab, kind: str, name: str, recipe: str, answers: Mapping[str, Any], ask: Ask = lambda w, k: "") -> Path:
    """`conf/KIND/NAME.yaml`, valid and part of the lab; raises Problems, and leaves no file, where it is not.

    `answers`: what the recipe leaves open, and fields or parameters to set, nested or by dotted names.
    """
    known, recipe = recipes(kind), recipe.removeprefix(f"{kind}/")
    if not known:
        raise problem(f"there are no recipes of the kind `{kind}`", do="see `lab recipes`")
    if recipe not in known:
        raise problem(
            f"there is no recipe `{recipe}` of the kind {kind}{did_you_mean(recipe, list(known))}",
            why=f"there are {', '.join(known)}",
            do=f"see `lab recipes {kind}`",
        )
    file = lab.conf / kind / f"{name}.yaml"
    if not is_name(name):
        raise problem(f"{name!r} is no name", why="a name has letters, digits, `_`, `-` and inner dots")
    if file.exists():
        raise problem(f"{kind}.{name} is declared already", why=f"in conf/{kind}/{name}.yaml", do="take another name")
    text = known[recipe].read_text(encoding="utf-8")
    given = dict(_dotted(answers))
    each = (yaml.safe_load(text) or {}).get("each") or {}
    for word in dict.fromkeys(w for w in _OPEN.findall(text) if w not in each):
        fitting = tuple(a for k in _STANDS_FOR.get(word, ()) for a in _named(lab, k))
        value = str(given.pop(word, "") or ask(word, fitting))
        if not value:
            why = f"the recipe leaves <{word}> open" + (f"; here are {', '.join(fitting[:8])}" if fitting else "")
            raise problem(f"what is the {word} of {kind}.{name}?", why=why, do=f"say {word}=…")
        text = text.replace(f"<{word}>", _answer(word, value))
    text = edit(text, {_field(k, text): v for k, v in given.items()}, f"conf/{kind}/{name}.yaml")
    put(file, text.encode())
    try:
        fresh = lab.again(())
        if f"{kind}.{name}" not in fresh.declarations and not any(
            a.startswith(f"{kind}.{name}.") for a in fresh.declarations
        ):
            raise problem(
                f"{kind}.{name} is not part of this profile",
                why=f"the profile's `resources.{kind}` does not choose it",
                do=f"add `{name}` there first, or choose another profile",
            )
    except Problems:
        file.unlink()
        raise
    return file


def _named(lab: Lab, kind: str) -> list[str]:
    """The lab's names of a kind, as a reference writes them. Reads."""
    names = [a.name for a in lab.declarations if a.kind == kind]
    return [f"quantization.{n}" for n in names] if kind == "quantization" else names


def _answer(word: str, value: str) -> str:
    """A reference as its field wants it: an experiment's outputs are named by its whole address. Pure."""
    if word == "experiment" and not value.startswith("experiment."):
        return f"experiment.{value}"
    return value.removeprefix("quantization.") if word == "ladder" else value


def _field(key: str, text: str) -> str:
    """A bare name that the recipe has among its parameters is that parameter. Pure."""
    block = yaml.safe_load(text) or {}
    return f"params.{key}" if key not in block and key in (block.get("params") or {}) else key


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found
