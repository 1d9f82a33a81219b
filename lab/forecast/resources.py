"""What declared models and quantizations cost and whether they fit, from their locks and the host; for their kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lab.core.forecast import Estimate
from lab.core.host import Host
from lab.forecast import catalogue, fit, gguf_types, reading
from lab.forecast.architecture import Architecture
from lab.forecast.use import MLX, Needs, Use, needs, weight_bytes

Known = Mapping[str, Any] | None


def architecture(hub: str, lock: Known, recorded: Known) -> Architecture | None:
    """The architecture of a declared model: recorded facts over the lock's, over what is published of `hub`. Pure."""
    found: Architecture | None = None
    for source in (recorded, lock):
        facts = (source or {}).get("model")
        if isinstance(facts, Mapping) and ("shape" in facts or "config" in facts):
            found = reading.from_facts(facts)
            break
    published = catalogue.find(hub) if hub else None
    if found and published and (found.layers, found.width) == (published.layers, published.width):
        return found.filled(published)
    return found or published


def published_bytes(lock: Known) -> Estimate | None:
    """Bytes of an unresolved model, as its lock says they were published; None where it does not. Pure."""
    facts = (lock or {}).get("model")
    size = facts.get("bytes") if isinstance(facts, Mapping) else None
    return Estimate.within(float(size), 0.01, "published") if isinstance(size, (int, float)) else None


def model_use(lock: Known, recorded: Known, context: int) -> Use:
    """How a model is run as it is: a GGUF in its type, anything else in 16 bits by MLX or as published. Pure."""
    told = [(known or {}).get("model") for known in (lock, recorded)]
    facts = {k: v for one in told if isinstance(one, Mapping) for k, v in one.items()}
    if facts.get("format") == "gguf":
        kind = gguf_types.canonical(str(facts.get("type") or facts.get("precision") or ""))
        return Use(type=kind or "", context=context)
    if facts.get("mlx") and isinstance(q := facts.get("quantization"), Mapping):
        bits, group = (n if isinstance(n := q.get(k), int) and n > 0 else None for k in ("bits", "group_size"))
        return Use(format=MLX, bits=bits, group_size=group, context=context)
    if facts.get("precision") == "MXFP4":
        return Use(type="MXFP4_MOE", context=context)
    return Use(format="safetensors", context=context)


def run(arch: Architecture | None, use: Use, host: Host, size: float | None = None) -> Needs | None:
    """What running it takes on this host; None where nothing is known of it. Pure."""
    if arch is None:
        return None
    found = needs(arch, use, host)
    return found if found.peak or found.decode or size is None else None


def disk(arch: Architecture | None, use: Use) -> Estimate | None:
    """Bytes of its weights on disk, with a header of a few megabytes; None where they cannot be counted. Pure."""
    size = weight_bytes(arch, use) if arch else None
    if size is None:
        return None
    words = (arch.vocab or 0) if arch else 0
    return Estimate(size.value + words * 45, size.low + words * 15, size.high + words * 90, size.source)


def problems(
    arch: Architecture | None, use: Use, host: Host, field: str, allowed: bool
) -> Iterator[tuple[str, str, str]]:
    """That it does not fit, which limit binds, and declarations that do; nothing where that cannot be told. Pure."""
    if arch is None or allowed or fit.limit(host) is None:
        return
    found = fit.verdict(arch, use, host)
    if found.fits is False:
        offered = ", or ".join(found.offers) or "a smaller model"
        if found.limit and (also := [u.label() for u in fit.fitting(arch, use, found.limit)][1:]):
            offered += f" ({', '.join(also)} fit too)"
        what = f"{use.label()} at {use.context} tokens does not fit on {host.name}: {found.why}"
        yield what, field, f"declare {offered}; or set `allow_overcommit: true`"
