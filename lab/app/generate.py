"""generate: text from a model or quantization of the lab, with how fast it came."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.problem import did_you_mean, problem
from lab.runs.runner import Runner, Sampling

RUNNABLE = ("model", "quantization")


@dataclass(frozen=True, slots=True)
class Generated:
    """What was generated, and the figures of it."""

    address: str
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    """From the prompt to the last token."""
    first: float
    """Seconds to the first token."""
    tokens_per_second: float
    """After the first token."""
    engine: str
    version: str
    device: str
    context: int
    memory: int
    """Peak bytes."""
    temperature: float
    seed: int
    fallback_from: str = ""
    """The device the engine would rather have had; empty where it has it."""

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)


def generate(
    lab: Lab,
    address: str,
    prompt: str,
    *,
    tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    top_p: float = 1.0,
    context: int | None = None,
    engine: str = "",
    chat: bool = False,
    each: Callable[[str], None] = lambda text: None,
) -> Generated:
    """The text after `prompt`; `each` is called with every piece as it comes. Its rate corrects the calibration."""
    from lab.adapters import machine
    from lab.app.calibrate import Observed, learn

    load = machine.load()
    with open_runner(lab, address, context=context, engine_=engine) as runner:
        text = runner.chat(prompt) if chat else prompt
        g = run(runner, address, text, tokens, Sampling(temperature, seed, top_p), each)
    middle = g.prompt_tokens + g.tokens // 2
    seen = Observed("generate", g.engine, g.context, middle, g.tokens, g.tokens_per_second, load)
    learn(lab, resolve(lab, address), seen)
    return g


def run(
    runner: Runner, address: str, prompt: str, tokens: int, sampling: Sampling, each: Callable[[str], None]
) -> Generated:
    """The text after `prompt` from a loaded model."""
    began = time.perf_counter()
    parts: list[str] = []
    first = last = began
    count = 0
    for piece in runner.generate(prompt, tokens=tokens, sampling=sampling):
        if piece.token >= 0:
            count += 1
            last = time.perf_counter()
            first = last if count == 1 else first
        parts.append(piece.text)
        each(piece.text)
    rate = (count - 1) / (last - first) if count > 1 and last > first else 0.0
    return Generated(
        address, "".join(parts), len(runner.tokenize(prompt, special=True)), count, last - began, first - began, rate,
        runner.engine, runner.version, runner.device, runner.context, runner.peak(),
        sampling.temperature, sampling.seed, getattr(runner, "fallback_from", ""),
    )  # fmt: skip


def open_runner(lab: Lab, address: str, *, context: int | None = None, **options: Any) -> Runner:
    """The resource's files, loaded by the engine they are for."""
    from lab.adapters import loading

    return loading.load(folder(lab, address), context=context, **options)


def folder(lab: Lab, address: str) -> Path:
    """Where a model's or quantization's files lie; a Problem where it is not declared, or not there yet."""
    full = resolve(lab, address)
    declaration: Any = lab.declarations[full]
    path = Path(declaration.view(lab.context(full)))
    if not path.is_dir():
        raise problem(
            f"{full} is not there yet", why=f"{path} does not exist", do=f"run `lab apply --only {full}`", address=full
        )
    return path


def resolve(lab: Lab, address: str) -> Address:
    """The declared address people mean: `model.x`, or just `x` where only one runnable resource has that name."""
    runnable = [a for a in lab.declarations if a.kind in RUNNABLE]
    if address in runnable:
        return Address(address)
    named = [a for a in runnable if a.name == address]
    if len(named) == 1:
        return named[0]
    if levels := [a for a in runnable if a.startswith(f"{address}.") or a.name.startswith(f"{address}.")]:
        raise problem(f"{address} is a ladder", why=f"its levels are {', '.join(levels)}", do="name one of them")
    if len(named) > 1:
        raise problem(f"`{address}` may be {' or '.join(named)}", do="write it in full")
    if address in lab.declarations:
        raise problem(f"{address} cannot be run", do=f"name a {' or a '.join(RUNNABLE)}")
    raise problem(f"`{address}` is not declared{did_you_mean(address, runnable)}", do="see `lab status`")
