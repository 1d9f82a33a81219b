"""Tokens per second: generation is bound by what is read per token, prompts by arithmetic.

    generation  s/token  = weights/(B·η) + experts/(B·η·0.85) + cache/(B·η_kv) + α·layers + MLA work·c
    prompt      s/prompt = c + 2·parameters·n/F + 2·attention work·n/(F·a) + weights/(B·η)

B is the memory's bandwidth, F the accelerator's sustained arithmetic. The constants below were fitted by robust least
squares to 161 generation and 118 prompt measurements published for M-series chips (2023–2026); a calibration of the
machine itself replaces them. Intervals were set to hold nine in ten of those measurements.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lab.core.forecast import Estimate
from lab.core.host import Host
from lab.forecast import reads
from lab.forecast.architecture import Architecture
from lab.forecast.reads import Reads

UBATCH = 512


@dataclass(frozen=True, slots=True)
class Engine:
    """How well an engine uses the machine."""

    eta: float
    """Share of the bandwidth it reaches reading weights."""
    kv: float
    """Share of the bandwidth it reaches reading the cache."""
    alpha: float
    """Seconds per layer and token, whatever the size; `alpha_moe` for mixtures of experts."""
    alpha_moe: float
    ultra: float = 1.0
    """Factor on `eta` on chips made of two dies."""
    flops: float = 1.0
    """Factor on the chip's arithmetic for prompts; `flops_moe` besides for mixtures of experts."""
    flops_moe: float = 0.77
    attention: float = 0.87
    """Share of that arithmetic it reaches in attention."""
    five: float = 1.0
    """Factor on the fifth generation's matrix units."""


ENGINES = {
    "llama.cpp": Engine(0.863, 0.789, 67e-6, 118e-6, 1.021),
    "mlx": Engine(0.837, 0.338, 60e-6, 120e-6, 1.102, 0.947, 0.819, 0.835, 1.022),
    "ollama": Engine(0.755, 0.789, 72e-6, 111e-6, 1.021),
    "llama.cpp-2024": Engine(0.888, 0.139, 67e-6, 118e-6, 0.977, 0.921, 0.77, 0.3),
    "ds4": Engine(0.863, 0.789, 67e-6, 118e-6, 1.0, 0.509, 1.0, 0.87, 0.493),
}
EXPERTS, MLA, MLA_FLOPS = 0.85, 9.05e-13, 0.752
"""Experts are read less evenly; seconds per multiply-add of absorbed MLA; its share of the prompt arithmetic."""
ULTRA_ALPHA, FIRST_ALPHA, SANDWICH_ALPHA = 1.656, 1.41, 1.204
"""Factors on α: two dies, the first generation, Gemma's doubled norms."""
FIRST_Q4, OLD_Q4, FIRST_Q4_FLOPS = 0.731, 0.753, 0.806
"""Factors for 4-bit K-quants: on the first generation's GPU, in 2024's kernels, and for prompts."""
V4_LAYER, V4_DEPTH, V4_PROMPT = 555e-6, 2.484e-7, 4.72e-8
"""DeepSeek V4: seconds per layer, per token of depth, and per prompt token and token of depth."""
CORE_TFLOPS = {1: 0.225, 2: 0.256, 3: 0.286, 4: 0.359, 5: 0.936}
"""Sustained TFLOP/s per GPU core by generation, as llama.cpp's prompts reach it."""
PROMPT_START, PROMPT_START_FIVE, HYBRID_FLOPS, F16_FLOPS, ULTRA_FLOPS = 0.024, 0.226, 0.879, 1.149, 1.027
DECODE, PREFILL, CALIBRATED = 0.16, 0.25, 0.15
"""Half-widths of the intervals."""
_CHIP = re.compile(r"\bM(\d+)\b")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a calibration of this machine says of one engine."""

    eta: float
    alpha: float
    flops: float
    """FLOP/s reached in prompts."""


def generation(chip: str) -> int:
    """The generation of an M-series chip; 0 where it is none. Pure."""
    found = _CHIP.search(chip)
    return int(found[1]) if found else 0


def bandwidth(host: Host) -> float | None:
    """Bytes/s of the memory that weights are read from; None where it is not known. Pure."""
    gbs = host.gpu_bandwidth if host.gpu == "cuda" and host.gpu_bandwidth else host.bandwidth
    return gbs * 1e9 if gbs else None


def flops(host: Host) -> float | None:
    """FLOP/s that prompts reach on this host; None where it is not known. Pure."""
    gen = min(generation(host.chip), 5)
    if gen and host.gpu_cores:
        return CORE_TFLOPS[gen] * 1e12 * host.gpu_cores * (ULTRA_FLOPS if "Ultra" in host.chip else 1.0)
    return host.tflops * 1e12 * 0.55 if host.tflops else None


def decode_seconds(
    arch: Architecture,
    read: Reads,
    host: Host,
    *,
    engine: str = "llama.cpp",
    depth: int = 0,
    kv_type: str = "f16",
    type: str = "",
    measured: Measured | None = None,
) -> float | None:
    """Seconds per generated token at `depth` tokens of context; None where the bandwidth is not known. Pure."""
    band = bandwidth(host)
    if band is None:
        return None
    e, gen, ultra = ENGINES.get(engine, ENGINES["llama.cpp"]), generation(host.chip), "Ultra" in host.chip
    layers = arch.layers or 0
    cache = reads.cache_read(arch, depth, kv_type) / (band * e.kv)
    work = reads.attention_work(arch, depth) * MLA if arch.mla else 0.0
    if measured:
        eta, alpha = measured.eta, measured.alpha
    else:
        eta, alpha = e.eta * (e.ultra if ultra else 1.0), e.alpha_moe if arch.experts else e.alpha
        if type[:2] in ("Q4", "Q5") and gen == 1:
            eta *= FIRST_Q4
        if type[:2] in ("Q4", "Q5") and "K" in type and engine == "llama.cpp-2024":
            eta *= OLD_Q4
        if arch.family.startswith("gemma"):
            alpha *= SANDWICH_ALPHA
        if arch.attention == "V4":
            alpha, work = V4_LAYER, depth * V4_DEPTH
        elif ultra:
            alpha *= ULTRA_ALPHA
        if gen == 1:
            alpha *= FIRST_ALPHA
    return read.dense / (band * eta) + read.experts / (band * eta * EXPERTS) + cache + alpha * layers + work


def prefill_seconds(
    arch: Architecture,
    read: Reads,
    host: Host,
    tokens: int,
    *,
    engine: str = "llama.cpp",
    depth: int = 0,
    type: str = "",
    measured: Measured | None = None,
) -> float | None:
    """Seconds to read a prompt of `tokens` after `depth` tokens; None where the arithmetic is not known. Pure."""
    band, fl = bandwidth(host), flops(host)
    if measured:
        fl = measured.flops
    if band is None or fl is None or tokens < 1:
        return None
    e, gen = ENGINES.get(engine, ENGINES["llama.cpp"]), generation(host.chip)
    if not measured:
        fl *= e.flops * (e.flops_moe if arch.experts else 1.0) * (HYBRID_FLOPS if arch.hybrid else 1.0)
        fl *= (F16_FLOPS if type in ("F16", "BF16") else 1.0) * (e.five if gen >= 5 else 1.0)
        if gen == 1 and type[:2] == "Q4" and "K" in type:
            fl *= FIRST_Q4_FLOPS
    middle = depth + tokens // 2
    share = MLA_FLOPS if arch.mla else e.attention
    touched = read.dense
    if arch.experts and arch.experts_used:
        touched += read.experts * min(arch.experts / arch.experts_used, min(tokens, UBATCH))
    start = PROMPT_START_FIVE if gen >= 5 and engine != "llama.cpp" else PROMPT_START
    output = (arch.vocab or 0) * (arch.width or 0)
    work = 2 * (read.parameters - output) / fl + 2 * reads.attention_work(arch, middle) / (fl * share)
    if arch.attention == "V4":
        work += middle * V4_PROMPT
    return (start if gen or measured is None else 0.0) + tokens * work + touched / (band * 0.85)


def rate(seconds: float | None, fraction: float, source: str) -> Estimate | None:
    """Tokens per second from seconds per token, with a relative interval. Pure."""
    if not seconds or not math.isfinite(seconds):
        return None
    return Estimate.within(1 / seconds, fraction, source)
