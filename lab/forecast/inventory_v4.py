"""The tensors of DeepSeek V4: compressed keys, hyper-connections, hash-routed experts (`models/deepseek4.cpp`)."""

from __future__ import annotations

from collections.abc import Iterator

from lab.forecast.architecture import Architecture
from lab.forecast.gguf_mix import Tensor

HC = 4
"""Streams of the hyper-connections."""
HASHED = 3
"""Leading layers that route by a table instead of a score."""
O_RANK, O_GROUP_HEADS = 1024, 8
"""Rank of each group of the output projection, and heads in a group."""


def tensors(a: Architecture, i: int) -> Iterator[Tensor]:
    """All but the experts and norms of layer `i`. Pure."""
    d, h, k, q = a.width or 0, a.heads or 0, a.head_dim or 0, a.q_rank or 0
    mix = (2 + HC) * HC
    groups = h // O_GROUP_HEADS
    yield _f("attn_sinks.weight", h)
    yield Tensor("attn_q_a.weight", (d, q))
    yield _f("attn_q_a_norm.weight", q)
    yield Tensor("attn_q_b.weight", (q, h * k))
    yield Tensor("attn_kv.weight", (d, k))
    yield _f("attn_kv_a_norm.weight", k)
    yield Tensor("attn_output_a.weight", (O_GROUP_HEADS * k, O_RANK * groups))
    yield Tensor("attn_output_b.weight", (groups * O_RANK, d))
    for part in ("attn", "ffn"):
        yield Tensor(f"hc_{part}_fn.weight", (HC * d, mix), "F32")
        yield _f(f"hc_{part}_base.weight", mix)
        yield _f(f"hc_{part}_scale.weight", 3)
    ratio = a.compress[i] if i < len(a.compress) else 0
    if ratio:
        wide = (2 if ratio == 4 else 1) * k
        yield from _compressor("attn_compressor", d, wide, ratio, k)
    if ratio == 4:
        n, dim = a.index["heads"], a.index["dim"]
        yield Tensor("indexer.proj.weight", (d, n))
        yield Tensor("indexer.attn_q_b.weight", (q, n * dim))
        yield from _compressor("indexer_compressor", d, 2 * dim, ratio, dim)
    if i < HASHED:
        yield Tensor("ffn_gate_tid2eid.weight", (a.experts_used, a.vocab or 0), "I32")
    else:
        yield _f("exp_probs_b.bias", a.experts)


def head(a: Architecture) -> Iterator[Tensor]:
    """The tensors that gather the streams before the output. Pure."""
    d = a.width or 0
    yield Tensor("hc_head_fn.weight", (HC * d, HC), "F32")
    yield _f("hc_head_base.weight", HC)
    yield _f("hc_head_scale.weight", 1)


def _compressor(name: str, d: int, wide: int, ratio: int, norm: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}_kv.weight", (d, wide))
    yield Tensor(f"{name}_gate.weight", (d, wide))
    yield Tensor(f"{name}_ape.weight", (wide, ratio), "F32")
    yield _f(f"{name}_norm.weight", norm)


def _f(name: str, size: int) -> Tensor:
    return Tensor(name, (size,), "F32")
