"""Fit: whether what is declared fits a host, which limit binds, and what would fit instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.core.host import GIB, Host
from lab.forecast import chips, gguf_types
from lab.forecast.architecture import Architecture
from lab.forecast.use import MLX, Needs, Use, needs
from lab.forecast.weights import RECIPES

__all__ = ["RECIPES", "Limit", "Verdict", "fitting", "limit", "offers", "verdict"]

MARGIN = GIB
"""What llama.cpp itself leaves free on an accelerator."""
SYSTEM = 6 * GIB
"""What the rest of a machine needs where nothing sets a limit."""
CONTEXTS = (131072, 65536, 32768, 16384, 8192, 4096, 2048)


@dataclass(frozen=True, slots=True)
class Limit:
    """The memory a model may take, and what sets it."""

    bytes: float
    name: str
    raisable: int | None = None
    """Bytes that `wired_limit` could be set to; None where it could not be raised."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it fits. `fits` is None where that cannot be told."""

    fits: bool | None
    needs: Needs
    limit: Limit | None
    why: str = ""
    offers: tuple[str, ...] = ()
    """Declarations that do fit, verified; best first."""


def limit(host: Host) -> Limit | None:
    """The memory a model may take on this host; None where it is not known. Pure."""
    if host.gpu == "cuda" and host.gpu_memory:
        return Limit(
            host.gpu_memory - MARGIN, f"{_size(host.gpu_memory)} of the GPU's own memory, less {_size(MARGIN)}"
        )
    if not host.memory:
        return None
    if host.gpu == "metal" or host.platform == "osx-arm64":
        top = host.memory - max(SYSTEM, host.memory // 24)
        if host.wired_limit:
            bound = min(host.wired_limit, host.memory)
            return Limit(
                bound - MARGIN, f"wired_limit {_size(bound)}, less {_size(MARGIN)}", top if top > bound else None
            )
        value, low, _ = chips.working_set(host.memory)
        bound = int(low if host.memory <= 36 * GIB else value)
        return Limit(bound - MARGIN, f"the system's default of {_size(bound)} wired, less {_size(MARGIN)}", top)
    left = max(MARGIN, min(SYSTEM, host.memory // 8))
    return Limit(host.memory - left, f"{_size(host.memory)} of memory, less {_size(left)} for the system")


def verdict(arch: Architecture, use: Use, host: Host, *, offer: bool = True) -> Verdict:
    """Whether `use` fits on `host`. What does not fit comes with declarations that do. Pure."""
    need, bound = needs(arch, use, host), limit(host)
    if need.peak is None or bound is None:
        why = "; ".join(need.notes) or "the memory of the host is not known"
        return Verdict(None, need, bound, why)
    if need.peak.value <= bound.bytes:
        return Verdict(True, need, bound)
    why = f"needs {_size(need.peak.value)}; there are {_size(bound.bytes)} ({bound.name})"
    return Verdict(False, need, bound, why, tuple(offers(arch, use, host)) if offer else ())


def offers(arch: Architecture, use: Use, host: Host) -> Iterator[str]:
    """Declarations near `use` that fit, each verified: a smaller type, a shorter context, a raised limit. Pure."""
    bound = limit(host)
    if bound is None:
        return
    smaller = next(fitting(arch, use, bound), None)
    if smaller is None:
        # Neither alone is enough: the best type at the longest context at which any fits.
        pairs = (u.with_(context=c) for c in CONTEXTS if c < use.context for u in ladder(use))
        if both := next((u for u in pairs if _fits(arch, u, bound)), None):
            yield f"{both.label()} at {_tokens(both.context)}"
    else:
        yield f"{smaller.label()} at {_tokens(use.context)}"
    shorter = next((c for c in CONTEXTS if c < use.context and _fits(arch, use.with_(context=c), bound)), None)
    if shorter:
        yield f"{use.label()} at {_tokens(shorter)}"
    if bound.raisable:
        peak = needs(arch, use).peak
        if peak and peak.value + MARGIN <= bound.raisable:
            gb = -(-int(peak.value + MARGIN) // 10**9)
            if gb * 10**9 <= bound.raisable:
                yield f"`wired_limit: {gb}GB`"


def fitting(arch: Architecture, use: Use, bound: Limit) -> Iterator[Use]:
    """The same use in every smaller type that fits, best first. Pure."""
    return (u for u in ladder(use) if _fits(arch, u, bound))


def ladder(use: Use) -> Iterator[Use]:
    """The same use in ever smaller types. Pure."""
    if use.format == MLX:
        for bits in (8, 6, 5, 4, 3):
            if bits < (use.bits or 16):
                yield use.with_(bits=bits, mode="affine", recipe="", group_size=None)
        return
    steps = list(gguf_types.LADDER)
    name = gguf_types.canonical(use.type) if use.type else None
    here = gguf_types.bits(gguf_types.FILE_TYPES[name].default) if name else 99.0
    for step in steps:
        if gguf_types.bits(gguf_types.FILE_TYPES[step].default) < here and step != name:
            yield use.with_(type=step)


def _fits(arch: Architecture, use: Use, bound: Limit) -> bool:
    peak = needs(arch, use).peak
    return peak is not None and peak.value <= bound.bytes


def _size(n: float) -> str:
    gib = n / GIB
    return f"{gib:.0f} GiB" if gib >= 10 else f"{gib:.1f} GiB" if gib >= 1 else f"{n / 2**20:.0f} MiB"


def _tokens(n: int) -> str:
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)
