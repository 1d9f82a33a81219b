"""advise: the best quality of a model that fits, why, and the settings to run it with."""

from __future__ import annotations

from lab.app.forecast import architecture, machine_of
from lab.app.lab import Lab
from lab.forecast.advice import Advice
from lab.forecast.advice import advise as best


def advise(
    lab: Lab,
    model: str,
    context: int = 0,
    host: str = "",
    engine: str = "",
    sequences: int = 1,
    least: float = 0.0,
) -> Advice:
    """What to declare for `model` on this host, or on another; `context` 0 takes 8,192, or the model's own if less."""
    arch, machine = architecture(lab, model), machine_of(lab, host)
    span = context or min(8192, arch.context or 8192)
    return best(arch, machine, span, engine=engine, sequences=sequences, least=least)
