"""fitting: whether a model that is here can be used on this host at its context. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.core.forecast import Estimate
from lab.core.host import GIB, Host
from lab.forecast import cache, fit, memory, reading
from lab.forecast.architecture import Architecture

DEFAULT_CONTEXT = 8192
"""Tokens that are asked for where nothing is declared: engines do not start with a model's longest."""


def limit(host: Host) -> float | None:
    """Bytes a model may take on a host; None where its memory is not known. Pure."""
    bound = fit.limit(host)
    return bound.bytes if bound else None


def need(found: Mapping[str, Any], size: int | None, context: int | None, host: Host) -> tuple[int | None, bool | None]:
    """Bytes of memory a model needs at `context` tokens, and whether the host has them; None where not known. Pure.

    The weights are taken from the headers, exactly; the cache and the buffers follow from the architecture.
    """
    weights = found.get("tensor_bytes") or size
    if not weights:
        return None, None
    exact = Estimate.exact(float(weights), "header")
    tokens = min(context or DEFAULT_CONTEXT, int(found.get("context") or context or DEFAULT_CONTEXT))
    peak = _peak(found, exact, tokens)
    bytes_ = int(peak.value if peak else exact.value * 1.1 + GIB // 2)
    most = limit(host)
    return bytes_, None if most is None else bytes_ <= most


def _peak(found: Mapping[str, Any], weights: Estimate, tokens: int) -> Estimate | None:
    shape = found.get("shape")
    if not isinstance(shape, Mapping):
        return None
    try:
        arch: Architecture = reading.from_lock(shape)
        engine = "mlx" if found.get("format") == "mlx" else "llama.cpp"
        kv = cache.kv(arch, tokens, engine=engine)
        if kv is None:
            return None
        buffer = None if engine == "mlx" else memory.compute_buffer(arch, cache.pad(tokens))
        return memory.peak(arch, weights, kv, buffer, context=tokens, engine=engine)
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError):
        return None
