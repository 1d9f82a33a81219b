"""Which tensor of a GGUF gets which type: the rules of `llama-quant.cpp`, tensor by tensor.

A replica of `llama_tensor_get_type` (llama.cpp as vendored in llama-cpp-python 0.3.36): the same tensors in the same
order give the same types, so that the bytes of a quantization are known before it is made. Shapes are ggml's: the row
length first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from lab.forecast.gguf_types import BLOCKS, FILE_TYPES, UNQUANTIZED, tensor_bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor before quantization: its GGUF name, its shape (row length first) and the type it has."""

    name: str
    shape: tuple[int, ...]
    type: str = "F16"

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        n = 1
        for d in self.shape:
            n *= d
        return n


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that recur: in each of `layers` (names without `blk.N.`), or once where there are none."""

    parts: tuple[Tensor, ...]
    layers: tuple[int, ...] = ()

    @property
    def times(self) -> int:
        """How often each part occurs."""
        return len(self.layers) or 1


@dataclass(slots=True)
class Traits:
    """What the rules ask of a model besides its tensors."""

    arch: str = "llama"
    layers: int = 0
    """All blocks, next-token-prediction ones included."""
    heads: int = 0
    """Of the first layer."""
    heads_kv: int = 0
    """Of the first layer."""
    experts: int = 0

    @property
    def gqa(self) -> int:
        """Query heads per key head in the first layer; 0 where that layer has no key heads."""
        return self.heads // self.heads_kv if self.heads_kv else 0

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp calls the model 70B, by layers alone."""
        if self.arch == "llama":
            return self.layers == 80 and self.heads != self.heads_kv
        return self.layers == {"qwen2": 80, "qwen2vl": -1, "deci": 80, "olmo": 80, "jais2": 68}.get(self.arch, -1)


# Parts of names that keep a tensor as it is.
_KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight",
    "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_",
    ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_GLM5_NEXT = (
    "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape",
    "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight",
    "attn_k_b.weight", "attn_v_b.weight",
)  # fmt: skip
_V, _QKV, _KV_B = "v", "qkv", "kv_b"
_ATTENTION_V = frozenset({_V, _QKV, _KV_B})
_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_FUSED = {"Q3_K_M": "Q4_K", "Q3_K_L": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}
_LOW_IQ = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ2_S", "IQ2_M", "IQ1_M"})
_EIGHT_EXPERTS_Q5 = frozenset(
    {"Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS"}
)


def quantizable(tensor: Tensor, arch: str) -> bool:
    """Whether llama.cpp quantizes this tensor at all. Pure."""
    dims = len(tensor.shape)
    while dims > 1 and tensor.shape[dims - 1] == 1:
        dims -= 1
    return dims > 1 and _named(tensor.name, arch)


@cache
def _named(name: str, arch: str) -> bool:
    if not name.endswith("weight") or name in ("position_embd.weight", "token_types.weight"):
        return False
    if any(part in name for part in _KEPT):
        return False
    return not (arch == "glm5-next" and any(part in name for part in _KEPT_GLM5_NEXT))


@cache
def category(name: str) -> str:
    """The broad role of a tensor, from its name. Pure."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "embd"
    for part, role in (
        ("attn_qkv.weight", _QKV), ("attn_kv_b.weight", _KV_B), ("attn_v.weight", _V), ("attn_k.weight", "k"),
        ("attn_q.weight", "q"), ("attn_output.weight", "o"), ("ffn_up", "up"), ("ffn_gate", "gate"),
        ("ffn_down", "down"),
    ):  # fmt: skip
        if part in name:
            return role
    return "other"


@dataclass(frozen=True, slots=True)
class _Rules:
    ftype: str
    traits: Traits
    imatrix: bool
    tied: bool
    n_v: int
    fused_apart: bool


def _more_bits(i: int, n: int) -> bool:
    # C++ truncates i - n/8 < 0 towards zero, but then i < n/8 holds already.
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def assign(
    groups: Iterable[Group], ftype: str, traits: Traits, *, imatrix: bool = False, fused_apart: bool = False
) -> Iterator[tuple[Tensor, str, int]]:
    """Each tensor with the type that `llama-quantize … ftype` gives it, and how many tensors alike get that type.

    Where the rule depends on the layer, alike tensors come in several runs. `fused_apart`: as llama.cpp did before
    2026, when a fused `attn_qkv` was not yet treated as `attn_v`. Pure.
    """
    listed = list(groups)
    default = FILE_TYPES[ftype].default
    roles = ("v", "down", "gate", "up") if ftype == "IQ3_XS" else ("v", "down")
    ranks = {role: _ranks(listed, role) for role in roles}
    loose = {t.name for g in listed if not g.layers for t in g.parts}
    rules = _Rules(ftype, traits, imatrix, "output.weight" not in loose, len(ranks["v"]), fused_apart)
    for group in listed:
        for tensor in group.parts:
            if not quantizable(tensor, traits.arch):
                yield tensor, tensor.type, group.times
            elif default in UNQUANTIZED:
                yield tensor, default, group.times
            else:
                yield from _runs(rules, group, tensor, default, ranks)


Ranks = dict[tuple[int, str], int]


def _ranks(groups: list[Group], role: str) -> Ranks:
    """Layer and name → how many tensors of this role llama.cpp has met before: it goes by layer, then by name."""
    met = [(i, t.name) for g in groups for t in g.parts if _counter(category(t.name)) == role for i in g.layers]
    return {key: rank for rank, key in enumerate(sorted(met))}


def _counter(role: str) -> str:
    return "v" if role in _ATTENTION_V else role


def _runs(
    rules: _Rules, group: Group, tensor: Tensor, default: str, ranks: dict[str, Ranks]
) -> Iterator[tuple[Tensor, str, int]]:
    role = category(tensor.name)
    counter = _counter(role)
    steady = counter in ("gate", "up") and rules.ftype != "IQ3_XS"
    if steady or counter not in ranks or not group.layers:
        yield tensor, _fit(tensor, _choose(rules, tensor, role, default, 0)), group.times
        return
    by_layer = rules.traits.experts > 1 and counter != "v" and rules.ftype not in _LOW_IQ
    kinds = Counter(
        _choose(rules, tensor, role, default, i if by_layer else ranks[counter][i, tensor.name]) for i in group.layers
    )
    for kind, times in kinds.items():
        yield tensor, _fit(tensor, kind), times


def quantized_bytes(
    groups: Iterable[Group], ftype: str, traits: Traits, *, imatrix: bool = False, fused_apart: bool = False
) -> int:
    """Bytes of all tensors after quantization to `ftype`; see `assign`. Pure."""
    chosen = assign(groups, ftype, traits, imatrix=imatrix, fused_apart=fused_apart)
    return sum(tensor_bytes(kind, t.shape) * times for t, kind, times in chosen)


def _fit(tensor: Tensor, kind: str) -> str:
    """`kind`, or what llama.cpp falls back to where the rows do not fill its blocks; ValueError where it refuses."""
    columns = tensor.shape[0]
    if columns % BLOCKS[kind][0] == 0:
        return kind
    if kind not in _FALLBACK and BLOCKS[kind][0] > 32:
        raise ValueError(
            f"{tensor.name}: rows of {columns} do not fill blocks of {kind}, and llama.cpp has no fallback"
        )
    kind = _FALLBACK.get(kind, kind)
    return kind if columns % BLOCKS[kind][0] == 0 else "F16"


def _choose(s: _Rules, t: Tensor, role: str, default: str, i: int) -> str:
    ftype, new = s.ftype, default
    if s.traits.arch == "glm5-next" and any(p in t.name for p in ("attn_q_a", "attn_q_b", "nextn.eh_proj")):
        return "Q8_0"
    if role == "output" or (s.tied and role == "embd"):
        return _output(s, t, default)
    if ftype == "MXFP4_MOE":
        experts = len(t.shape) > 2 and t.shape[2] > 1
        return "MXFP4" if experts and (s.traits.arch != "bailingmoe3" or role in ("up", "gate", "down")) else "Q8_0"
    if role == "embd":
        return _embedding(ftype, default)
    if ftype in _LOW_IQ:
        return _low_iq(s, role, default, i)
    if role == _QKV and s.fused_apart:
        return _FUSED.get(ftype, default)
    if role in _ATTENTION_V:
        return _attention_v(s, default, i)
    if role in ("k", "q"):
        if role == "k" and s.traits.experts == 8:
            return "Q8_0"
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(ftype, new)
    if role == "down":
        return _ffn_down(s, default, i)
    if role == "o":
        return _attention_output(s, default)
    if role in ("gate", "up"):
        n = s.traits.layers
        return "IQ3_XXS" if ftype == "IQ3_XS" and n // 8 <= i < 7 * n // 8 else new
    return new


def _output(s: _Rules, t: Tensor, default: str) -> str:
    if s.ftype == "MXFP4_MOE" or s.traits.arch == "falcon" or t.shape[0] % BLOCKS[default][0]:
        return "Q8_0"
    if s.ftype in _LOW_IQ or s.ftype == "IQ3_XXS":
        return "Q5_K"
    return default if default == "Q8_0" else "Q6_K"


def _embedding(ftype: str, default: str) -> str:
    if ftype in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
        return "Q2_K"
    if ftype in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
        return "IQ3_S"
    return "Q4_K" if ftype in ("TQ1_0", "TQ2_0", "Q2_0") else default


def _low_iq(s: _Rules, role: str, default: str, i: int) -> str:
    better = "IQ3_S" if s.ftype in ("IQ2_S", "IQ2_M") else "Q2_K"
    if role in _ATTENTION_V:
        return "Q4_K" if s.traits.gqa >= 4 or s.traits.experts >= 4 else better
    if s.traits.experts == 8 and role == "k":
        return "Q4_K"
    if role == "down":
        return better if i < s.traits.layers // 8 else default
    if role == "o":
        if s.traits.experts == 8:
            return "Q5_K"
        return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(s.ftype, default)
    return default


def _attention_v(s: _Rules, default: str, i: int) -> str:
    ftype, gqa, new = s.ftype, s.traits.gqa, default
    if ftype == "Q2_K":
        new = "Q4_K" if gqa >= 4 else "Q3_K"
    elif ftype == "IQ3_XXS":
        new = "Q4_K" if gqa >= 4 else "IQ3_XXS" if s.imatrix else "IQ3_S"
    elif (ftype in ("Q2_K_S", "IQ3_XS", "IQ3_S") and gqa >= 4) or ftype == "IQ3_M":
        new = "Q4_K"
    elif ftype == "Q3_K_M":
        new = "Q5_K" if i < 2 else "Q4_K"
    elif ftype == "Q3_K_L" or (ftype in ("IQ4_NL", "IQ4_XS") and gqa >= 4):
        new = "Q5_K"
    elif ftype in ("Q4_K_M", "Q5_K_M") and _more_bits(i, s.n_v):
        new = "Q6_K"
    elif ftype == "Q4_K_S" and i < 4:
        new = "Q5_K"
    if s.traits.is_70b and new in ("Q3_K", "Q4_K"):
        new = "Q5_K"
    return "Q8_0" if s.traits.experts == 8 else new


def _ffn_down(s: _Rules, default: str, i: int) -> str:
    ftype, falcon = s.ftype, s.traits.arch == "falcon"
    n = s.traits.layers
    early, more = i < n // 8, _more_bits(i, n)
    if ftype == "Q2_K":
        return "Q3_K"
    if ftype == "Q2_K_S":
        return "Q4_K" if early else default
    if ftype == "IQ3_XXS" and not s.imatrix:
        return "Q4_K" if early else "Q3_K"
    if ftype == "Q3_K_M":
        return "Q5_K" if i < n // 16 else "Q4_K" if not falcon or more else "Q3_K"
    if ftype == "IQ3_M":
        return "Q4_K" if early or (s.traits.experts == 8 and more) else default
    if ftype == "Q3_K_L":
        return "Q4_K" if falcon else "Q5_K"
    if ftype == "Q4_K_M":
        if falcon:
            return "Q6_K" if i < n // 16 else "Q5_K" if more else "Q4_K"
        return "Q6_K" if more else default
    if ftype == "Q5_K_M" and more:
        return "Q6_K"
    if early:
        if ftype in ("IQ4_NL", "IQ4_XS") and not s.imatrix:
            return "Q5_K"
        if ftype == "Q4_K_S" and not falcon:
            return "Q5_K"
        if ftype in ("Q4_0", "Q5_0") and s.imatrix:
            return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[ftype]
    return default


def _attention_output(s: _Rules, default: str) -> str:
    ftype = s.ftype
    if s.traits.arch == "falcon":
        return "Q4_K" if ftype == "Q3_K_L" else default
    if s.traits.experts == 8:
        return "Q5_K" if ftype in _EIGHT_EXPERTS_Q5 else default
    better = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
    return better.get(ftype, default)
