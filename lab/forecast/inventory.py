"""Every tensor of a model, by the names and shapes its GGUF has, derived from the architecture alone.

Shapes are ggml's: the row length first. `role` tells an MLX forecast how the same weights are treated there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from lab.forecast import inventory_v4
from lab.forecast.architecture import DENSE, FULL, LINEAR, MOE, NONE, SSM, WINDOW, Architecture
from lab.forecast.families import Traits, traits
from lab.forecast.gguf_mix import Group, Tensor

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
        out += [n for n in ("compress", "index", "q_rank") if not getattr(arch, n)]
    return tuple(dict.fromkeys(out))


def tensors(arch: Architecture, *, mtp: bool = False) -> list[Tensor]:
    """All tensors of the trunk, with `mtp` the next-token-prediction blocks too; a header's own list where known.

    ValueError where something needed is missing. Pure.
    """
    if arch.tensors:
        return list(arch.tensors)
    out: list[Tensor] = []
    for group in groups(arch, mtp=mtp):
        if not group.layers:
            out += group.parts
        for i in group.layers:
            out += [Tensor(f"blk.{i}.{t.name}", t.shape, t.type) for t in group.parts]
    return out


_last: list[tuple[Architecture, bool, list[Group]]] = []


def groups(arch: Architecture, *, mtp: bool = False) -> list[Group]:
    """The same tensors, those of alike layers counted together. ValueError where something needed is missing. Pure."""
    # One model is asked about many times in a row: weights, reads, every type of a ladder.
    if _last and _last[0][0] is arch and _last[0][1] == mtp:
        return _last[0][2]
    found = _groups(arch, mtp)
    _last[:] = [(arch, mtp, found)]
    return found


def _groups(arch: Architecture, mtp: bool) -> list[Group]:
    if arch.tensors:
        return _grouped(arch.tensors)
    if lacking := missing(arch):
        raise ValueError(", ".join(lacking))
    t, alike = traits(arch.family), defaultdict[tuple[str, str, bool, int, bool], list[int]](list)
    first_shared = (arch.layers or 0) - arch.kv_shared_layers
    for i, (mixer, feed) in enumerate(zip(arch.mixers(), arch.feeds(), strict=True)):
        ratio = arch.compress[i] if arch.compress else 0
        hashed = arch.family == "deepseek4" and i < inventory_v4.HASHED
        alike[(mixer, feed, i >= first_shared, ratio, hashed)].append(i)
    out = [Group(tuple(_loose(arch, t)))]
    for (mixer, feed, shared, _, _), layers in alike.items():
        wide = shared and arch.double_wide
        out.append(Group(tuple(block(arch, t, layers[0], mixer, feed, wide=wide)), tuple(layers)))
    if mtp and arch.mtp:
        extra = tuple(range(arch.layers or 0, (arch.layers or 0) + arch.mtp))
        out.append(Group(tuple(_mtp(arch, t)), extra))
    return out


def _grouped(listed: tuple[Tensor, ...]) -> list[Group]:
    """A header's list, tensors of the same name, shape and type in several layers counted together."""
    alike: dict[Tensor, list[int]] = {}
    loose = []
    for t in listed:
        if t.name.startswith("blk."):
            number, _, name = t.name[4:].partition(".")
            alike.setdefault(Tensor(name, t.shape, t.type), []).append(int(number))
        else:
            loose.append(t)
    return [Group(tuple(loose)), *(Group((t,), tuple(layers)) for t, layers in alike.items())]


def _loose(a: Architecture, t: Traits) -> Iterator[Tensor]:
    d, vocab = a.width or 0, a.vocab or 0
    yield _w("token_embd.weight", d, vocab)
    yield _f("output_norm.weight", d)
    if t.norm_bias:
        yield _f("output_norm.bias", d)
    if not a.tied:
        yield _w("output.weight", d, vocab)
        if t.output_bias:
            yield _f("output.bias", vocab)
    if a.family in ("gemma4", "gemma4e"):
        yield _f("rope_freqs.weight", (a.global_head_dim or a.head_dim or 0) // 2)
    if a.family == "deepseek4":
        yield from inventory_v4.head(a)
    if a.ple:
        wide = a.ple * (a.layers or 0)
        yield _w("per_layer_token_embd.weight", wide, a.ple_vocab or vocab)
        yield _w("per_layer_model_proj.weight", d, wide)
        yield _f("per_layer_proj_norm.weight", a.ple)


def _mtp(a: Architecture, t: Traits) -> Iterator[Tensor]:
    d = a.width or 0
    yield from block(a, t, a.layers or 0, FULL, MOE if a.experts else DENSE)
    yield _w("nextn.eh_proj.weight", 2 * d, d)
    for name in ("enorm", "hnorm", "shared_head_norm"):
        yield _f(f"nextn.{name}.weight", d)


def block(a: Architecture, t: Traits, i: int, mixer: str, feed: str, *, wide: bool = False) -> Iterator[Tensor]:
    """The tensors of one layer, names without `blk.N.`. Pure."""
    d = a.width or 0
    for norm in t.norms if mixer != NONE and feed != NONE else ("attn_norm",):
        yield _f(f"{norm}.weight", d)
        if t.norm_bias:
            yield _f(f"{norm}.bias", d)
    if a.family == "deepseek4":
        yield from inventory_v4.tensors(a, i)
    elif mixer in (FULL, WINDOW):
        yield from _mla(a) if a.mla else _attention(a, t, mixer)
    elif mixer == LINEAR:
        yield from _kda(a) if a.family in ("kimi-linear", "kimi-k3") else _delta(a)
    elif mixer == SSM:
        yield from _mamba(a)
    if feed == DENSE:
        yield from _dense(a, t, (a.ffn or 0) * (2 if wide else 1))
    elif feed == MOE:
        yield from _moe(a, t)
    if a.ple:
        yield _w("inp_gate.weight", d, a.ple)
        yield _w("proj.weight", a.ple, d)
        yield _f("post_norm.weight", d)
    if t.layer_scale:
        yield _f("layer_output_scale.weight", 1)


def _attention(a: Architecture, t: Traits, mixer: str) -> Iterator[Tensor]:
    d, h = a.width or 0, a.heads or 0
    kv, k_dim, v_dim = heads(a, mixer)
    q, k, v = h * k_dim * (2 if t.gated_q else 1), kv * k_dim, kv * v_dim
    if t.fused_qkv:
        yield _w("attn_qkv.weight", d, q + k + v)
        if t.qkv_bias:
            yield _f("attn_qkv.bias", q + k + v)
    else:
        parts = [("q", q), ("k", k), ("v", v)]
        if a.k_eq_v and mixer == FULL:
            parts = [x for x in parts if x[0] != "v"]
        for name, size in parts:
            yield _w(f"attn_{name}.weight", d, size)
            if t.qkv_bias:
                yield _f(f"attn_{name}.bias", size)
    yield _w("attn_output.weight", h * v_dim, d)
    if t.o_bias:
        yield _f("attn_output.bias", d)
    if t.qk_norm:
        yield _f("attn_q_norm.weight", h * k_dim if t.qk_norm == "wide" else k_dim)
        yield _f("attn_k_norm.weight", k if t.qk_norm == "wide" else k_dim)
    if t.sinks:
        yield _f("attn_sinks.weight", h)
    if a.family == "minimax-m3" and a.index:
        yield _w("indexer.q_proj.weight", d, a.index["heads"] * a.index["dim"], kept=True)
        yield _w("indexer.k_proj.weight", d, a.index["dim"], kept=True)


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


def _mla(a: Architecture) -> Iterator[Tensor]:
    d, h, rank = a.width or 0, a.heads or 0, a.kv_rank or 0
    nope, rope, v = a.nope_dim or 0, a.rope_dim or 0, a.v_head_dim or 0
    if a.q_rank:
        yield _w("attn_q_a.weight", d, a.q_rank)
        yield _f("attn_q_a_norm.weight", a.q_rank)
        yield _w("attn_q_b.weight", a.q_rank, h * (nope + rope))
    else:
        yield _w("attn_q.weight", d, h * (nope + rope))
    yield _w("attn_kv_a_mqa.weight", d, rank + rope)
    yield _f("attn_kv_a_norm.weight", rank)
    if a.mla_split:
        yield Tensor("attn_k_b.weight", (nope, rank, h))
        yield Tensor("attn_v_b.weight", (rank, v, h))
    else:
        yield _w("attn_kv_b.weight", rank, h * (nope + v))
    yield _w("attn_output.weight", h * v, d)
    if a.index:
        n, dim = a.index["heads"], a.index["dim"]
        yield _w("indexer.attn_q_b.weight", a.q_rank or d, n * dim)
        yield _w("indexer.attn_k.weight", d, dim)
        yield _f("indexer.k_norm.weight", dim)
        yield _f("indexer.k_norm.bias", dim)
        yield _w("indexer.proj.weight", d, n)


def _delta(a: Architecture) -> Iterator[Tensor]:
    """Gated delta net (Qwen3-Next, Qwen3.5)."""
    d, s = a.width or 0, a.ssm
    key, value = s["k_heads"] * s["k_dim"], s["v_heads"] * s["v_dim"]
    yield _w("attn_qkv.weight", d, 2 * key + value)
    yield _w("attn_gate.weight", d, value)
    yield Tensor("ssm_conv1d.weight", (s["conv"], 2 * key + value), "F32")
    yield _f("ssm_dt.bias", s["v_heads"])
    yield _f("ssm_a", s["v_heads"])
    if a.family == "qwen3next":
        yield _w("ssm_ba.weight", d, 2 * s["v_heads"])
    else:
        yield _w("ssm_beta.weight", d, s["v_heads"])
        yield _w("ssm_alpha.weight", d, s["v_heads"])
    yield _f("ssm_norm.weight", s["v_dim"])
    yield _w("ssm_out.weight", value, d)


def _kda(a: Architecture) -> Iterator[Tensor]:
    """Kimi delta attention."""
    d, s = a.width or 0, a.ssm
    inner = s["heads"] * s["dim"]
    for name in ("q", "k", "v"):
        yield _w(f"attn_{name}.weight", d, inner)
        yield Tensor(f"ssm_conv1d_{name}.weight", (s["conv"], 1, inner), "F32")
    yield _w("ssm_f_a.weight", d, s["dim"])
    yield _w("ssm_f_b.weight", s["dim"], inner)
    yield _w("ssm_beta.weight", d, s["heads"])
    yield _f("ssm_a", s["heads"])
    yield _w("ssm_g_a.weight", d, s["dim"])
    yield _w("ssm_g_b.weight", s["dim"], inner)
    yield _f("ssm_dt.bias", inner)
    yield _f("ssm_norm.weight", s["dim"])
    yield _w("attn_output.weight", inner, d)


def _mamba(a: Architecture) -> Iterator[Tensor]:
    """Mamba 2 (Nemotron-H)."""
    d, s = a.width or 0, a.ssm
    inner = s["heads"] * s["dim"]
    conv = inner + 2 * s["groups"] * s["state"]
    yield _w("ssm_in.weight", d, inner + conv + s["heads"])
    yield Tensor("ssm_conv1d.weight", (s["conv"], conv), "F32")
    yield _f("ssm_conv1d.bias", conv)
    for name in ("ssm_dt.bias", "ssm_a", "ssm_d"):
        yield _f(name, s["heads"])
    yield _f("ssm_norm.weight", inner)
    yield _w("ssm_out.weight", inner, d)


def _dense(a: Architecture, t: Traits, ff: int) -> Iterator[Tensor]:
    d = a.width or 0
    if t.fused_up:
        yield _w("ffn_up.weight", d, 2 * ff)
    else:
        if t.gated:
            yield _w("ffn_gate.weight", d, ff)
        yield _w("ffn_up.weight", d, ff)
    yield _w("ffn_down.weight", ff, d)
    if t.ffn_bias:
        yield _f("ffn_up.bias", ff)
        yield _f("ffn_down.bias", d)


def _moe(a: Architecture, t: Traits) -> Iterator[Tensor]:
    d, e, ff = a.width or 0, a.experts, a.expert_ffn or 0
    inner = a.latent or d
    yield Tensor("ffn_gate_inp.weight", (d, e), "F32")
    if t.router_bias:
        yield _f(f"{t.router_bias}", e)
    if t.fused_gate_up:
        yield Tensor("ffn_gate_up_exps.weight", (inner, 2 * ff, e))
    else:
        if t.gated:
            yield Tensor("ffn_gate_exps.weight", (inner, ff, e))
        yield Tensor("ffn_up_exps.weight", (inner, ff, e))
    yield Tensor("ffn_down_exps.weight", (ff, inner, e))
    if t.expert_bias:
        for name, size in (("gate", ff), ("up", ff), ("down", d)):
            yield Tensor(f"ffn_{name}_exps.bias", (size, e), "F32")
    if a.latent:
        yield _w("ffn_latent_down.weight", d, a.latent)
        yield _w("ffn_latent_up.weight", a.latent, d)
    if shared := a.shared_ffn or a.shared_experts * ff:
        for name in ("gate", "up") if t.gated else ("up",):
            yield _w(f"ffn_{name}_shexp.weight", d, shared)
        yield _w("ffn_down_shexp.weight", shared, d)
        if t.shared_gate:
            yield _f("ffn_gate_inp_shexp.weight", d)
    if t.dense_beside:
        yield from _dense(a, t, a.ffn or 0)
        for name in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
            yield _f(f"{name}.weight", d)
        yield _f("ffn_gate_inp.scale", d)
        yield _f("ffn_down_exps.scale", e)


def _w(name: str, columns: int, rows: int, *, kept: bool = False) -> Tensor:
    return Tensor(name, (columns, rows), "F32" if kept else "F16")


def _f(name: str, size: int) -> Tensor:
    return Tensor(name, (size,), "F32")
