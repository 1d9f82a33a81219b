"""load: a model of the lab for a script or notebook, in the form this machine should run it in.

from lab.app.load import load
model, tokenizer = load("model.qwen3_8b")
print("".join(piece.text for piece in model.generate("The for statement", tokens=32)))
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import strftime
from typing import Any

from lab.app.generate import folder, resolve
from lab.app.lab import Lab, read_machine
from lab.core.address import Address
from lab.core.host import Host
from lab.declare.settings import LoadingSettings
from lab.forecast import choice, gguf_types, levels, resources, weights
from lab.forecast.choice import Choice, Form
from lab.forecast.use import MLX, Use
from lab.runs.runner import ModelLoadError, Runner

__all__ = ["Choice", "ModelLoadError", "Tokenizer", "choose", "load"]

log = logging.getLogger("lab.load")
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What a loaded model makes of text, whatever engine runs it."""

    model: Runner

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The tokens of a text, with what a prompt begins with."""
        return self.model.tokenize(text, special=special)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return self.model.detokenize(tokens)

    def chat(self, text: str) -> str:
        """The prompt that the model's chat template makes of one message."""
        return self.model.chat(text)


def load(
    name: str, *, lab: Lab | None = None, context: int | None = None, engine: str = ""
) -> tuple[Runner, Tokenizer]:
    """A model or quantization and its tokenizer; without `lab`, of the lab that the working directory lies in.

    Files that cannot be loaded are a ModelLoadError, told to the logger `lab.load` and in `state/logs/load.log` too.
    """
    from lab.adapters import loading

    lab = lab or Lab.find(Path.cwd())
    found = choose(lab, name, context=context, engine=engine)
    log.info("%s: %s by %s on %s, because %s", name, found.address, found.engine, found.device, found.why)
    options: dict[str, Any] = {"bits": found.bits} if found.bits else {}
    try:
        model = loading.load(folder(lab, found.address), engine_=found.engine, context=context, **options)
    except ModelLoadError as e:
        line = f"{found.address} cannot be loaded: {e.problems[0].summary}: {e.problems[0].why}"
        log.error(line)
        _keep(lab.state / "logs" / "load.log", line)
        raise
    if {"metal": "mps"}.get(model.device, model.device) != found.device:
        log.warning("%s runs on %s, not on %s: %s has no more here", name, model.device, found.device, model.version)
    return model, Tokenizer(model)


def choose(lab: Lab, name: str, *, context: int | None = None, engine: str = "", host: Host | None = None) -> Choice:
    """What `load` would load on this machine, or on another, and why. Reads."""
    full = resolve(lab, name)
    declared = lab.head.get("lab", {}).get("loading") or {}
    above = LoadingSettings.model_validate(declared).four_bit_above
    there = host or read_machine(lab.state)
    named = _form(lab, full, there, context)
    of = full if full.kind == "model" else None
    others = [_form(lab, a, there, context) for a in _quantizations(lab, of)] if of else []
    return choice.choose(named, _parameters(lab, of) if of else None, others, there, above, engine=engine)


def _quantizations(lab: Lab, model: Address) -> Iterator[Address]:
    return (a for a, d in lab.declarations.items() if a.kind == "quantization" and getattr(d, "of", "") == model)


def _parameters(lab: Lab, model: Address) -> int | None:
    """Its weights, as counted in its headers, else as its published shape has them."""
    declaration: Any = lab.declarations[model]
    known = _original(lab, model)
    shape = declaration.shape(lab.context(model))
    return known.params or (weights.parameters(shape) if shape else None)


def _original(lab: Lab, model: Address) -> levels.Original:
    context = lab.context(model)
    return levels.original(lab.declarations[model], context.lock, context.recorded(model))


def _form(lab: Lab, address: Address, host: Host, tokens: int | None) -> Form:
    """The form of a declared model or quantization, and what it would take on a host."""
    declaration: Any = lab.declarations[address]
    context = lab.context(address)
    made = Path(declaration.view(context)).is_dir()
    span = tokens or min(declaration.context or CONTEXT, CONTEXT)
    if address.kind == "quantization":
        use = declaration.form()
        bits = declaration.width if use.format == MLX else choice.gguf_bits(declaration.type)
    else:
        known = _original(lab, address)
        use = resources.model_use(context.lock, context.recorded(address), span)
        use, bits = _own(known, use)

    def takes(use: Use) -> float | None:
        needs = resources.run(declaration.shape(context), use.with_(context=span), host)
        return needs.peak.value if needs and needs.peak and not declaration.allow_overcommit else None

    squeezed = takes(Use(format=MLX, bits=choice.FOUR)) if bits is None else None
    return Form(str(address), use.format, bits, takes(use), squeezed, made)


def _own(known: levels.Original, use: Use) -> tuple[Use, int | None]:
    """How a model runs as it is, and its bits where its weights are quantized already."""
    if known.format == "gguf":
        kind = gguf_types.canonical(known.precision) or ""
        return use.with_(format="gguf", type=kind), choice.gguf_bits(kind)
    if not known.quantized and known.precision != "MXFP4":
        return use.with_(format="safetensors"), None
    bits = use.bits or (4 if known.precision == "MXFP4" else _number(known.precision))
    return use.with_(format="mlx" if known.quantized == "mlx" else "safetensors"), bits or 16


def _number(precision: str) -> int | None:
    head = precision.partition("-bit")[0]
    return int(head) if head.isdigit() else None


def _keep(file: Path, line: str) -> None:
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as f:
            f.write(f"{strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
