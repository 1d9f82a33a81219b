"""Every tensor of a model, by the names and shapes its GGUF has, derived from the architecture alone.

Shapes are ggml's: the row length first. `role` tells an MLX forecast how the same weights are treated there.
"""

from __future__ import annotations

from collections.abc import Iterator

from lab.forecast.architecture import DENSE, FULL, LINEAR, MOE, NONE, SSM, WINDOW, Architecture
from lab.forecast.families import Traits, traits
from lab.forecast.gguf_mix import Tensor

NEEDED = ("layers", "width", "vocab", "tied")


def missing(arch: Architecture) -> tuple[str, ...]:
    """What must be known before the weights can be counted, and is not. Pure."""
    out = list(arch.missing(*NEEDED))
    if not arch.family:
        out.append("family")
    mixers, feeds = set(arch.mixers()), set(arch.feeds())
    if mixers & {FULL, WINDOW}:
        if arch.mla:
            out += arch.missing("heads", "nope_dim", "rope_dim", "v_head_dim")
        else:
            out += arch.missing("heads", "heads_kv", "head_dim")
    if mixers & {LINEAR, SSM} and not arch.ssm:
        out.append("ssm")
    if DENSE in feeds:
        out += arch.missing("ffn")
    if MOE in feeds:
        out += arch.missing("expert_ffn")
    if arch.family == "deepseek4":
        out.append("the tensors of V4's compressors")
    return tuple(dict.fromkeys(out))


def tensors(arch: Architecture, *, mtp: bool = False) -> list[Tensor]:
    """All tensors of the trunk, with `mtp` the next-token-prediction blocks too; a header's own list where known.

    ValueError where something needed is missing. Pure.
    """
    if arch.tensors:
        return list(arch.tensors)
    if lacking := missing(arch):
        raise ValueError(", ".join(lacking))
    return list(_all(arch, mtp))


def _all(a: Architecture, mtp: bool) -> Iterator[Tensor]:
    t = traits(a.family)
    assert a.width
    assert a.vocab
    yield _w("token_embd.weight", a.width, a.vocab)
    yield _f("output_norm.weight", a.width)
    if t.norm_bias:
        yield _f("output_norm.bias", a.width)
    if not a.tied:
        yield _w("output.weight", a.width, a.vocab)
        if t.output_bias:
            yield _f("output.bias", a.vocab)
    if a.ple:
        assert a.layers
        yield _w("per_layer_token_embd.weight", a.ple * a.layers, a.ple_vocab or a.vocab)
        yield _w("per_layer_model_proj.weight", a.width, a.ple * a.layers)
        yield _f("per_layer_proj_norm.weight", a.ple)
    for i, (mixer, feed) in enumerate(zip(a.mixers(), a.feeds(), strict=True)):
        yield from block(a, t, i, mixer, feed)
    if mtp:
        for i in range(a.mtp):
            at = (a.layers or 0) + i
            yield from block(a, t, at, FULL, MOE if a.experts else DENSE)
            yield _w(f"blk.{at}.nextn.eh_proj.weight", 2 * a.width, a.width)
            for name in ("enorm", "hnorm", "shared_head_norm"):
                yield _f(f"blk.{at}.nextn.{name}.weight", a.width)


def block(a: Architecture, t: Traits, i: int, mixer: str, feed: str) -> Iterator[Tensor]:
    """The tensors of one layer. Pure."""
    assert a.width
    p = f"blk.{i}."
    for norm in t.norms if mixer != NONE and feed != NONE else ("attn_norm",):
        yield _f(f"{p}{norm}.weight", a.width)
        if t.norm_bias:
            yield _f(f"{p}{norm}.bias", a.width)
    if mixer in (FULL, WINDOW):
        yield from _mla(a, p) if a.mla else _attention(a, t, p, mixer, i)
    elif mixer == LINEAR:
        yield from _kda(a, p) if a.family in ("kimi-linear", "kimi-k3") else _delta(a, p)
    elif mixer == SSM:
        yield from _mamba(a, p)
    if feed == DENSE:
        yield from _dense(a, t, p)
    elif feed == MOE:
        yield from _moe(a, t, p)
    if a.ple:
        yield _w(f"{p}inp_gate.weight", a.width, a.ple)
        yield _w(f"{p}proj.weight", a.ple, a.width)
        yield _f(f"{p}post_norm.weight", a.width)
    if t.layer_scale:
        yield _f(f"{p}layer_output_scale.weight", 1)


def _attention(a: Architecture, t: Traits, p: str, mixer: str, i: int) -> Iterator[Tensor]:
    d, h = a.width or 0, a.heads or 0
    kv, k_dim, v_dim = heads(a, mixer)
    q, k, v = h * k_dim * (2 if t.gated_q else 1), kv * k_dim, kv * v_dim
    shared = a.kv_shared_layers and i >= (a.layers or 0) - a.kv_shared_layers
    if t.fused_qkv:
        yield _w(f"{p}attn_qkv.weight", d, q + k + v)
        if t.qkv_bias:
            yield _f(f"{p}attn_qkv.bias", q + k + v)
    else:
        parts = [("q", q)] if shared else [("q", q), ("k", k), ("v", v)]
        if a.k_eq_v and mixer == FULL:
            parts = [x for x in parts if x[0] != "v"]
        for name, size in parts:
            yield _w(f"{p}attn_{name}.weight", d, size)
            if t.qkv_bias:
                yield _f(f"{p}attn_{name}.bias", size)
    yield _w(f"{p}attn_output.weight", h * v_dim, d)
    if t.o_bias:
        yield _f(f"{p}attn_output.bias", d)
    if t.qk_norm:
        yield _f(f"{p}attn_q_norm.weight", h * k_dim if t.qk_norm == "wide" else k_dim)
        if not shared:
            yield _f(f"{p}attn_k_norm.weight", k if t.qk_norm == "wide" else k_dim)
    if t.sinks:
        yield _f(f"{p}attn_sinks.weight", h)
    if a.family == "minimax-m3" and a.index:
        yield _w(f"{p}indexer.q_proj.weight", d, a.index["heads"] * a.index["dim"], kept=True)
        yield _w(f"{p}indexer.k_proj.weight", d, a.index["dim"], kept=True)


def heads(a: Architecture, mixer: str) -> tuple[int, int, int]:
    """Key heads, key size and value size of a layer's attention. Pure."""
    kv, k_dim, v_dim = a.heads_kv or 0, a.head_dim or 0, a.values or 0
    if mixer == FULL and a.global_head_dim:
        return a.global_heads_kv or kv, a.global_head_dim, a.global_head_dim
    if mixer == FULL and a.global_heads_kv:
        kv = a.global_heads_kv
    if mixer == WINDOW:
        kv = a.window_heads_kv or kv
        k_dim, v_dim = a.window_head_dim or k_dim, a.window_v_head_dim or v_dim
    return kv, k_dim, v_dim


def _mla(a: Architecture, p: str) -> Iterator[Tensor]:
    d, h, rank = a.width or 0, a.heads or 0, a.kv_rank or 0
    nope, rope, v = a.nope_dim or 0, a.rope_dim or 0, a.v_head_dim or 0
    if a.q_rank:
        yield _w(f"{p}attn_q_a.weight", d, a.q_rank)
        yield _f(f"{p}attn_q_a_norm.weight", a.q_rank)
        yield _w(f"{p}attn_q_b.weight", a.q_rank, h * (nope + rope))
    else:
        yield _w(f"{p}attn_q.weight", d, h * (nope + rope))
    yield _w(f"{p}attn_kv_a_mqa.weight", d, rank + rope)
    yield _f(f"{p}attn_kv_a_norm.weight", rank)
    if a.mla_split:
        yield Tensor(f"{p}attn_k_b.weight", (nope, rank, h))
        yield Tensor(f"{p}attn_v_b.weight", (rank, v, h))
    else:
        yield _w(f"{p}attn_kv_b.weight", rank, h * (nope + v))
    yield _w(f"{p}attn_output.weight", h * v, d)
    if a.index:
        n, dim = a.index["heads"], a.index["dim"]
        yield _w(f"{p}indexer.attn_q_b.weight", a.q_rank or d, n * dim)
        yield _w(f"{p}indexer.attn_k.weight", d, dim)
        yield _f(f"{p}indexer.k_norm.weight", dim)
        yield _f(f"{p}indexer.k_norm.bias", dim)
        yield _w(f"{p}indexer.proj.weight", d, n)


def _delta(a: Architecture, p: str) -> Iterator[Tensor]:
    """Gated delta net (Qwen3-Next, Qwen3.5)."""
    d, s = a.width or 0, a.ssm
    key, value = s["k_heads"] * s["k_dim"], s["v_heads"] * s["v_dim"]
    yield _w(f"{p}attn_qkv.weight", d, 2 * key + value)
    yield _w(f"{p}attn_gate.weight", d, value)
    yield Tensor(f"{p}ssm_conv1d.weight", (s["conv"], 2 * key + value), "F32")
    yield _f(f"{p}ssm_dt.bias", s["v_heads"])
    yield _f(f"{p}ssm_a", s["v_heads"])
    if a.family == "qwen3next":
        yield _w(f"{p}ssm_ba.weight", d, 2 * s["v_heads"])
    else:
        yield _w(f"{p}ssm_beta.weight", d, s["v_heads"])
        yield _w(f"{p}ssm_alpha.weight", d, s["v_heads"])
    yield _f(f"{p}ssm_norm.weight", s["v_dim"])
    yield _w(f"{p}ssm_out.weight", value, d)


def _kda(a: Architecture, p: str) -> Iterator[Tensor]:
    """Kimi delta attention."""
    d, s = a.width or 0, a.ssm
    inner = s["heads"] * s["dim"]
    for name in ("q", "k", "v"):
        yield _w(f"{p}attn_{name}.weight", d, inner)
        yield Tensor(f"{p}ssm_conv1d_{name}.weight", (s["conv"], 1, inner), "F32")
    yield _w(f"{p}ssm_f_a.weight", d, s["dim"])
    yield _w(f"{p}ssm_f_b.weight", s["dim"], inner)
    yield _w(f"{p}ssm_beta.weight", d, s["heads"])
    yield _f(f"{p}ssm_a", s["heads"])
    yield _w(f"{p}ssm_g_a.weight", d, s["dim"])
    yield _w(f"{p}ssm_g_b.weight", s["dim"], inner)
    yield _f(f"{p}ssm_dt.bias", inner)
    yield _f(f"{p}ssm_norm.weight", s["dim"])
    yield _w(f"{p}attn_output.weight", inner, d)


def _mamba(a: Architecture, p: str) -> Iterator[Tensor]:
    """Mamba 2 (Nemotron-H)."""
    d, s = a.width or 0, a.ssm
    inner = s["heads"] * s["dim"]
    conv = inner + 2 * s["groups"] * s["state"]
    yield _w(f"{p}ssm_in.weight", d, inner + conv + s["heads"])
    yield Tensor(f"{p}ssm_conv1d.weight", (s["conv"], conv), "F32")
    yield _f(f"{p}ssm_conv1d.bias", conv)
    for name in ("ssm_dt.bias", "ssm_a", "ssm_d"):
        yield _f(p + name, s["heads"])
    yield _f(f"{p}ssm_norm.weight", inner)
    yield _w(f"{p}ssm_out.weight", inner, d)


def _dense(a: Architecture, t: Traits, p: str) -> Iterator[Tensor]:
    d, ff = a.width or 0, a.ffn or 0
    if t.double_wide and a.kv_shared_layers and int(p.split(".")[1]) >= (a.layers or 0) - a.kv_shared_layers:
        ff *= 2
    if t.fused_up:
        yield _w(f"{p}ffn_up.weight", d, 2 * ff)
    else:
        if t.gated:
            yield _w(f"{p}ffn_gate.weight", d, ff)
        yield _w(f"{p}ffn_up.weight", d, ff)
    yield _w(f"{p}ffn_down.weight", ff, d)
    if t.ffn_bias:
        yield _f(f"{p}ffn_up.bias", ff)
        yield _f(f"{p}ffn_down.bias", d)


def _moe(a: Architecture, t: Traits, p: str) -> Iterator[Tensor]:
    d, e, ff = a.width or 0, a.experts, a.expert_ffn or 0
    inner = a.latent or d
    yield Tensor(f"{p}ffn_gate_inp.weight", (d, e), "F32")
    if t.router_bias:
        yield _f(f"{p}{t.router_bias}", e)
    if t.fused_gate_up:
        yield Tensor(f"{p}ffn_gate_up_exps.weight", (inner, 2 * ff, e))
    else:
        if t.gated:
            yield Tensor(f"{p}ffn_gate_exps.weight", (inner, ff, e))
        yield Tensor(f"{p}ffn_up_exps.weight", (inner, ff, e))
    yield Tensor(f"{p}ffn_down_exps.weight", (ff, inner, e))
    if t.expert_bias:
        for name, size in (("gate", ff), ("up", ff), ("down", d)):
            yield Tensor(f"{p}ffn_{name}_exps.bias", (size, e), "F32")
    if a.latent:
        yield _w(f"{p}ffn_latent_down.weight", d, a.latent)
        yield _w(f"{p}ffn_latent_up.weight", a.latent, d)
    if shared := a.shared_ffn or a.shared_experts * ff:
        for name in ("gate", "up") if t.gated else ("up",):
            yield _w(f"{p}ffn_{name}_shexp.weight", d, shared)
        yield _w(f"{p}ffn_down_shexp.weight", shared, d)
        if t.shared_gate:
            yield _f(f"{p}ffn_gate_inp_shexp.weight", d)
    if t.dense_beside:
        yield from _dense(a, t, p)
        for name in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
            yield _f(f"{p}{name}.weight", d)
        yield _f(f"{p}ffn_gate_inp.scale", d)
        yield _f(f"{p}ffn_down_exps.scale", e)


def _w(name: str, columns: int, rows: int, *, kept: bool = False) -> Tensor:
    return Tensor(name, (columns, rows), "F32" if kept else "F16")


def _f(name: str, size: int) -> Tensor:
    return Tensor(name, (size,), "F32")
