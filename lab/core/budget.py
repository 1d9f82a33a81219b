"""Budget: how fast a model must be on this machine; `lab bench` holds what it measured against it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lab.core.block import Block


class Budget(Block):
    """What a model may cost in time; what is not named is not judged."""

    load_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds it may take to load, at most."""
    ttft_ms: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds to the first token, at most, at every depth that is measured."""
    decode_tps: Annotated[float, Field(gt=0)] | None = None
    """Tokens per second after the first, at least, at every depth that is measured."""

    def verdicts(self, load_s: float, ttft_ms: float, decode_tps: float) -> list[tuple[bool, str]]:
        """Whether each named figure is kept, and that in words. Pure."""
        figures = (("load_s", load_s, True), ("ttft_ms", ttft_ms, True), ("decode_tps", decode_tps, False))
        found = []
        for name, value, most in figures:
            limit = getattr(self, name)
            if limit is not None:
                kept = value <= limit if most else value >= limit
                sign = ("≤" if most else "≥") if kept else (">" if most else "<")
                found.append((kept, f"{'PASS' if kept else 'FAIL'}  {name} {value:g} {sign} {limit:g}"))
        return found
