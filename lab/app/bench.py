"""bench: how fast a model or quantization runs here, kept with engine version and context depth."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lab.app.calibrate import Observed, learn
from lab.app.generate import folder, resolve
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.problem import problem


@dataclass(frozen=True, slots=True)
class Bench:
    """One measurement: at one context depth, the median of several repeats."""

    at: float
    """Seconds since the epoch."""
    address: str
    host: str
    chip: str
    digest: str
    """Of the resource's inputs."""
    engine: str
    version: str
    device: str
    context: int
    depth: int
    """Tokens of the prompt: how deep the context is when generation begins."""
    prompt_tokens_per_second: float
    tokens_per_second: float
    first: float
    """Seconds to the first token."""
    tokens: int
    repeats: int
    memory: int
    """Peak bytes, over all depths."""
    load: float
    """The machine's load average per core when it began: figures of a busy machine are low."""
    load_s: float = 0.0
    """Seconds to load the model; 0 where it was not measured."""


def bench(
    lab: Lab,
    address: str,
    *,
    depths: Sequence[int] = (16, 256),
    tokens: int = 48,
    repeats: int = 3,
    context: int | None = None,
) -> list[Bench]:
    """The figures, one per depth; they are appended to `state/bench.jsonl`."""
    from lab.adapters import machine, score

    if tokens < 2 or repeats < 1 or any(d < 1 for d in depths):
        raise problem("at least 2 tokens, 1 repeat and depths of 1 are measured")
    full = resolve(lab, address)
    load = machine.load()
    asked = {"depths": list(depths), "tokens": tokens, "repeats": repeats, "context": context}
    found = score.bench(folder(lab, full), asked, lab.state / "logs" / f"bench-{full}.log", None)
    rows = [
        Bench(
            time.time(), str(full), lab.host.name, lab.host.chip, lab.declared.digests[full], found["engine"],
            found["version"], found["device"], found["context"], r["depth"], r["prompt_rate"], r["rate"], r["first"],
            r["tokens"], r["repeats"], found["peak"], round(load, 2), found["load"],
        )
        for r in found["rows"]
    ]  # fmt: skip
    lab.state.mkdir(parents=True, exist_ok=True)
    with open(lab.state / "bench.jsonl", "a", encoding="utf-8") as f:
        f.writelines(json.dumps(asdict(r)) + "\n" for r in rows)
    for r in rows:
        middle = r.depth + r.tokens // 2
        learn(lab, full, Observed("bench", r.engine, r.context, middle, r.tokens, r.tokens_per_second, load))
    return rows


def judged(lab: Lab, rows: Sequence[Bench]) -> list[tuple[bool, str]]:
    """Whether what was measured keeps the declared budget: each of its figures, by the worst depth, in words. Pure."""
    if not rows:
        return []
    declaration: Any = lab.declaration(Address(rows[-1].address))
    found: list[tuple[bool, str]] = declaration.budget.verdicts(
        max(r.load_s for r in rows), 1000 * max(r.first for r in rows), min(r.tokens_per_second for r in rows)
    )
    return found


def kept(lab: Lab, address: str = "") -> list[dict[str, Any]]:
    """The figures measured so far, oldest first; of one address, or of all. Reads."""
    try:
        lines = (lab.state / "bench.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # A line that a crash cut short.
        if not address or row.get("address") == address:
            rows.append(row)
    return rows
