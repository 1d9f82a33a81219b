"""Working memory beside weights and cache, and the peak of all."""

from __future__ import annotations

from lab.core.forecast import Estimate
from lab.forecast.architecture import Architecture

MIB = 2**20
LLAMA_OVERHEAD = 160 * MIB
"""Process, tokenizer, outputs and graph of llama.cpp, at most."""
MLX_OVERHEAD = 470e6
"""What MLX's allocator and process hold besides weights, cache and logits, at most."""
MLX_STEP = 2048


def compute_buffer(
    arch: Architecture, context: int, *, ubatch: int = 512, flash_attention: bool = True
) -> Estimate | None:
    """Bytes of llama.cpp's graph: the largest of logits, feed-forward and attention, and the scores without flash.

    Activations are f32 for `ubatch` tokens; the mask is f16, `ubatch` × context. None where vocab or width are unknown.
    Fitted to the engine's own dry runs to within 2 %. Pure.
    """
    if not arch.vocab or not arch.width:
        return None
    unit = ubatch * 4
    d, q = arch.width, (arch.heads or 0) * (arch.head_dim or 0)
    mask = ubatch * context * 2
    ffn = arch.ffn or 0
    if arch.experts:
        ffn = max(ffn if arch.dense_layers else 0, (arch.expert_ffn or 0) * max(1, arch.experts_used))
    parts = [(arch.vocab + 2 * d) * unit, (3 * ffn + 3 * d + q) * unit + mask]
    if arch.family == "gpt-oss":
        parts[0] += mask  # its mask is still held while the logits are computed
    if arch.mla and arch.heads:
        rank, rope, nope = arch.kv_rank or 0, arch.rope_dim or 0, arch.nope_dim or 128
        parts.append((arch.heads * (2 * rank + 2 * rope + 2 * nope) + 4 * d) * unit + mask)
    total = float(max(parts))
    if not flash_attention:
        total += (arch.heads or 0) * context * unit
    return Estimate(total, total * 0.9, total * 1.1 + 8 * MIB, "fitted rule")


def peak(
    arch: Architecture,
    weights: Estimate,
    cache: Estimate,
    buffer: Estimate | None,
    *,
    context: int,
    engine: str = "llama.cpp",
) -> Estimate:
    """The most memory the engine holds at once; the value errs upwards, so that it is never under.

    MLX holds the logits of a step of the prompt in 16 bits, and one linear layer's projections, at most in 32. Pure.
    """
    total = weights.value + cache.value
    if engine == "mlx":
        step = min(context, MLX_STEP)
        extra = (arch.vocab or 256_000) * step * 2 + _linear(arch) * step * 4 + MLX_OVERHEAD
    else:
        extra = (buffer.value if buffer else 600 * MIB) + LLAMA_OVERHEAD
    high = weights.high + cache.high + extra * 1.1
    return Estimate(total + extra, weights.low + cache.low, max(high, (total + extra) * 1.02), "rule")


def _linear(arch: Architecture) -> int:
    """Width of what a linear-attention layer projects a token to: queries, keys, values and gates; 0 without one."""
    at = arch.ssm
    return 2 * (at.get("k_heads", 0) * at.get("k_dim", 0) + at.get("v_heads", 0) * at.get("v_dim", 0))
