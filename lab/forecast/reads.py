"""What must be read from memory to generate one token: weights by role, and the cache by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.forecast import gguf_mix, inventory, weights
from lab.forecast.architecture import FULL, WINDOW, Architecture
from lab.forecast.cache import SIZES
from lab.forecast.gguf_mix import Tensor
from lab.forecast.gguf_types import bits as type_bits
from lab.forecast.gguf_types import canonical
from lab.forecast.inventory import heads


@dataclass(frozen=True, slots=True)
class Reads:
    """Bytes and parameters touched per token. The input embedding is a lookup and costs nothing."""

    dense: float
    """Bytes outside the experts, the output included."""
    experts: float
    """Bytes of the experts used."""
    parameters: float
    """Numbers multiplied per token."""


def weights_read(
    arch: Architecture,
    *,
    type: str = "",
    bits: float | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    recipe: str = "",
) -> Reads | None:
    """What a token reads of the weights: GGUF by `type`, MLX by `bits`, 16 bits or a header's own types by neither.

    None where the tensors cannot be counted. Pure.
    """
    if not arch.tensors and inventory.missing(arch):
        return None
    try:
        return _read(arch, type, bits, group_size, mode, recipe)
    except ValueError:  # llama.cpp refuses this type for these rows
        return None


def _read(a: Architecture, type: str, bits: float | None, group: int | None, mode: str, recipe: str) -> Reads:
    dense = experts = output = count = output_count = 0.0
    for tensor, size, times in _sized(a, type, bits, group, mode, recipe):
        name, n = tensor.name, float(tensor.weights) * times
        if name == "token_embd.weight":
            output, output_count = output or size * n, output_count or n
        elif name == "output.weight":
            output, output_count = size * n, n
        elif name in ("per_layer_token_embd.weight", "ffn_gate_tid2eid.weight"):
            continue
        elif "_exps" in name:
            share = a.experts_used / a.experts if a.experts else 1.0
            experts += size * n * share
            count += n * share
        else:
            dense += size * n
            count += n
    return Reads(dense + output, experts, count + output_count)


def _sized(
    a: Architecture, type: str, bits: float | None, group: int | None, mode: str, recipe: str
) -> Iterator[tuple[Tensor, float, int]]:
    """Each tensor with the bytes of one of its numbers, and how often it occurs."""
    trunk = a.layers or 0
    name = canonical(type) if type else None
    if name:
        for tensor, kind, times in gguf_mix.assign(inventory.groups(a), name, weights.mix_traits(a)):
            yield tensor, type_bits(kind) / 8, times
    elif bits is not None:
        wide = group or weights.MODES[mode][0]
        for tensor, chosen, times in weights.mlx_runs(a, int(bits), recipe):
            if tensor.weights:
                yield tensor, weights.mlx_bytes(a, tensor, chosen, wide, mode) / tensor.weights, times
    else:
        for g in inventory.groups(a):
            times = sum(i < trunk for i in g.layers) if g.layers else 1
            for tensor in g.parts:
                yield tensor, type_bits(tensor.type) / 8, times


def cache_read(arch: Architecture, depth: int, kv_type: str = "f16") -> float:
    """Bytes of cache read to generate a token at `depth` tokens of context. Pure."""
    s = SIZES.get(kv_type, 2.0)
    total = 0.0
    if arch.attention == "V4":
        head, dim = arch.head_dim or 0, arch.index.get("dim", 0)
        for ratio in arch.compress:
            total += min(depth, arch.window or depth) * head * s
            if ratio == 4:
                total += depth / 4 * dim * s + min(depth / 4, arch.index.get("top", 512)) * head * s
            elif ratio:
                total += depth / ratio * head * s
        return total
    for mixer in arch.mixers():
        if mixer not in (FULL, WINDOW):
            continue
        n = min(depth, arch.window or depth) if mixer == WINDOW else depth
        if arch.mla:
            seen = min(n, arch.index["top"]) if arch.index.get("top") else n
            total += seen * s * ((arch.kv_rank or 0) + (arch.rope_dim or 0)) + n * s * arch.index.get("dim", 0)
        else:
            kv, k, v = heads(arch, mixer)
            total += n * s * kv * (k + v)
    return total


def attention_work(arch: Architecture, depth: int) -> float:
    """Multiply-adds of attention per token at `depth`: scores and values, every query head. Pure."""
    total = 0.0
    for mixer in arch.mixers():
        if mixer not in (FULL, WINDOW):
            continue
        n = min(depth, arch.window or depth) if mixer == WINDOW or arch.attention == "V4" else depth
        if arch.mla:
            n = min(n, arch.index["top"]) if arch.index.get("top") else n
            total += n * (arch.heads or 0) * (2 * (arch.kv_rank or 0) + (arch.rope_dim or 0))
        else:
            _, k, v = heads(arch, mixer)
            total += n * (arch.heads or 0) * (k + v)
    return total
