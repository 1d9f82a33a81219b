"""Advice: the best quality of a model that fits a host, why, and the settings to run it with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.core.host import GIB, Host
from lab.forecast import fit
from lab.forecast.architecture import Architecture
from lab.forecast.use import MLX, Needs, Use

QUALITY: tuple[tuple[Use, float], ...] = (
    (Use(type="Q8_0"), 0.0001),
    (Use(type="Q6_K"), 0.0005),
    (Use(type="Q5_K_M"), 0.0010),
    (Use(type="Q4_K_M"), 0.0020),
    (Use(type="IQ4_XS", imatrix=True), 0.0030),
    (Use(type="Q3_K_M"), 0.0060),
    (Use(type="IQ3_XXS", imatrix=True), 0.0150),
    (Use(type="Q2_K"), 0.0250),
    (Use(type="IQ2_XXS", imatrix=True), 0.0800),
)
MLX_QUALITY: tuple[tuple[Use, float], ...] = (
    (Use(format=MLX, bits=8), 0.0010),
    (Use(format=MLX, bits=6), 0.0030),
    (Use(format=MLX, bits=5), 0.0060),
    (Use(format=MLX, bits=4), 0.0120),
    (Use(format=MLX, bits=3), 0.0400),
)
"""Uses from the most faithful, with about how far (KL divergence) each strays from the original."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to declare, in words and as settings; `best` is None where nothing fits or nothing can be told."""

    best: Needs | None
    reasons: tuple[str, ...]
    settings: Mapping[str, Any]
    others: tuple[Needs, ...] = ()
    """Other forms that fit, best first."""

    def to_json(self) -> dict[str, Any]:
        """As `lab advise --json` prints it."""
        return {
            "format": 1,
            "best": self.best.to_json() if self.best else None,
            "reasons": list(self.reasons),
            "settings": dict(self.settings),
            "others": [n.to_json() for n in self.others],
        }


def advise(
    arch: Architecture,
    host: Host,
    context: int,
    *,
    engine: str = "",
    sequences: int = 1,
    least: float = 0.0,
) -> Advice:
    """The best quality that fits at `context` and generates at least `least` tokens/s. Pure."""
    bound = fit.limit(host)
    if bound is None:
        return Advice(None, ("the memory of the host is not known; declare it in conf/host",), {})
    fitting: list[tuple[float, Needs]] = []
    refused: Needs | None = None
    slow: Needs | None = None
    for use, stray in _candidates(host, engine):
        verdict = fit.verdict(arch, use.with_(context=context, sequences=sequences), host, offer=False)
        if verdict.fits is None:
            continue
        if not verdict.fits:
            refused = verdict.needs if refused is None else refused
        elif verdict.needs.decode and verdict.needs.decode.value < least:
            slow = verdict.needs
        else:
            fitting.append((stray, verdict.needs))
    fitting.sort(key=lambda f: f[0])
    if not fitting:
        return _nothing(arch, host, context, bound, refused, slow, least)
    best = fitting[0][1]
    reasons = list(_reasons(best, bound, refused, fitting))
    return Advice(best, tuple(reasons), settings(arch, best.use, host), tuple(n for _, n in fitting[1:4]))


def _candidates(host: Host, engine: str) -> Iterator[tuple[Use, float]]:
    if engine in ("", "llama.cpp"):
        yield from QUALITY
    if engine == "mlx" or (engine == "" and host.gpu == "metal"):
        yield from MLX_QUALITY


def _nothing(
    arch: Architecture,
    host: Host,
    context: int,
    bound: fit.Limit,
    refused: Needs | None,
    slow: Needs | None,
    least: float,
) -> Advice:
    if slow is not None and slow.decode:
        reason = f"what fits generates {slow.decode.value:.1f} tokens/s at most, less than the {least:g} asked for"
        return Advice(None, (reason,), {})
    if refused is None:
        why = "; ".join(arch.unknown) or "its weights or its cache cannot be counted"
        return Advice(None, (f"nothing can be told of it: {why}",), {})
    smallest = QUALITY[-1][0].with_(context=context)
    reasons = [f"nothing fits in {bound.bytes / GIB:.1f} GiB ({bound.name})"]
    offered = list(fit.offers(arch, smallest, host))
    reasons += [f"{o} would fit" for o in offered] or ["no shorter context and no smaller type fits either"]
    return Advice(None, tuple(reasons), {})


def _reasons(best: Needs, bound: fit.Limit, refused: Needs | None, fitting: list[tuple[float, Needs]]) -> Iterator[str]:
    assert best.peak
    yield (
        f"{best.use.label()} is the most faithful form that fits: {best.peak.value / GIB:.1f} GiB of the "
        f"{bound.bytes / GIB:.1f} GiB there are ({bound.name})"
    )
    if refused and refused.peak:
        yield f"{refused.use.label()} would need {refused.peak.value / GIB:.1f} GiB"
    if best.decode:
        yield f"it generates about {best.decode.value:.0f} tokens/s ({best.decode.source})"
    faster = [n for _, n in fitting[1:] if n.decode and best.decode and n.decode.value > best.decode.value * 1.25]
    if faster and faster[0].decode:
        yield f"{faster[0].use.label()} would generate about {faster[0].decode.value:.0f}, and stray further"


def settings(arch: Architecture, use: Use, host: Host) -> dict[str, Any]:
    """The engine's settings for this use on this host. Pure."""
    out: dict[str, Any] = {"engine": use.runs_on, "context": use.context}
    if use.runs_on != MLX:
        out["gpu_layers"] = (arch.layers or 0) + 1 if host.gpu else 0
        out["threads"] = (
            max(1, (host.cores or 2) - (host.cores or 2) // 4) if not host.gpu else max(1, (host.cores or 8) // 2)
        )
        out["batch"] = 2048 if host.gpu else 512
        out["ubatch"] = use.ubatch
        out["flash_attention"] = use.flash_attention
        out["kv_type"] = use.kv_type
    if use.imatrix:
        out["imatrix"] = True
    bound = fit.limit(host)
    if host.gpu == "metal" and bound and not host.wired_limit and bound.raisable:
        out["wired_limit"] = f"{bound.raisable // 10**9}GB at most; not needed for this"
    return out
