"""Architecture: what a forecast knows of a model, and what it does not.

The facts come from a `config.json`, a GGUF or safetensors header, a lock, or a row of a table (see `reading`). None
means "not known"; nothing is guessed: `unknown` says in words what is missing and why it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lab.forecast.gguf_mix import Tensor

FULL, WINDOW, LINEAR, SSM, NONE = "full", "window", "linear", "ssm", "none"
"""What mixes tokens in a layer: full attention, a window (or chunk), linear attention, a state space, nothing."""
DENSE, MOE = "dense", "moe"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a language model. Sizes are counts of numbers, never bytes."""

    name: str = ""
    family: str = ""
    """llama.cpp's word where it has one: `llama`, `qwen3moe`, `deepseek2`, `gemma3`, …; empty where unknown."""
    layers: int | None = None
    """Blocks of the trunk, next-token-prediction blocks not counted."""
    width: int | None = None
    """Size of the hidden state."""
    heads: int | None = None
    heads_kv: int | None = None
    head_dim: int | None = None
    v_head_dim: int | None = None
    """Where it differs from `head_dim`."""
    ffn: int | None = None
    """Inner size of a dense feed-forward block."""
    vocab: int | None = None
    tied: bool | None = None
    """Whether output and input embeddings are one tensor."""
    experts: int = 0
    experts_used: int = 0
    shared_experts: int = 0
    expert_ffn: int | None = None
    shared_ffn: int | None = None
    """Inner size of all shared experts together; None where it is `shared_experts × expert_ffn`."""
    dense_layers: int = 0
    """Leading layers whose feed-forward is dense in a mixture of experts."""
    moe_every: int = 1
    """Every n-th layer is a mixture of experts (Llama 4 Maverick: 2)."""
    latent: int | None = None
    """MoE latent width (Nemotron 3 Super), where experts work in a smaller space."""
    kv_rank: int | None = None
    """Rank of the compressed keys and values (MLA)."""
    q_rank: int | None = None
    rope_dim: int | None = None
    nope_dim: int | None = None
    mla_split: bool = True
    """False for old files whose MLA cache is stored decompressed."""
    window: int | None = None
    full_layers: int | None = None
    window_layers: int | None = None
    linear_layers: int | None = None
    pattern: tuple[str, ...] = ()
    """What mixes tokens, layer by layer, where the file says it."""
    global_head_dim: int | None = None
    global_heads_kv: int | None = None
    window_heads_kv: int | None = None
    window_head_dim: int | None = None
    window_v_head_dim: int | None = None
    kv_shared_layers: int = 0
    """Last layers that reuse the keys and values of earlier ones (Gemma 3n, Gemma 4 E)."""
    k_eq_v: bool = False
    """Whether full layers have no value projection of their own (Gemma 4)."""
    ple: int = 0
    """Width of per-layer embeddings (Gemma 3n, Gemma 4 E)."""
    ple_vocab: int = 0
    double_wide: bool = False
    """Whether layers that share keys and values have a feed-forward twice as wide (Gemma 4 E2B)."""
    tower: int | None = None
    """Bytes of the image or audio tower as published, where known."""
    ssm: Mapping[str, int] = field(default_factory=dict)
    """Linear or state-space layers: `k_heads, v_heads, k_dim, v_dim, conv` or `heads, dim, state, groups, conv`."""
    index: Mapping[str, int] = field(default_factory=dict)
    """Sparse indexer: `heads, dim, top`."""
    index_layers: int | None = None
    """Layers with an indexer of their own; None where every full layer has one."""
    compress: tuple[int, ...] = ()
    """Compression ratio of each layer (DeepSeek V4)."""
    mtp: int = 0
    """Next-token-prediction blocks beside the trunk."""
    context: int | None = None
    """Longest context it was made for."""
    vision: bool = False
    """Whether the repository holds an image or audio tower as well."""
    causal: bool = True
    """False for encoders, which keep no cache."""
    parameters: int | None = None
    """Counted in a header, where there is one."""
    tensors: tuple[Tensor, ...] = ()
    """A GGUF header's own list: exact."""
    dtype: str = "BF16"
    """Precision of the published weights."""
    source: str = ""
    """`header`, `config`, `lock`, `table` or `catalogue`."""
    unknown: tuple[str, ...] = ()
    """What is not known, in words."""

    @property
    def mla(self) -> bool:
        """Whether keys and values are compressed to one latent vector per token."""
        return bool(self.kv_rank) and self.family != "deepseek4"

    @property
    def hybrid(self) -> bool:
        """Whether some layers keep a state of constant size instead of a cache."""
        return bool(self.linear_layers) or LINEAR in self.pattern or SSM in self.pattern

    @property
    def values(self) -> int | None:
        """Size of one value head."""
        return self.v_head_dim or self.head_dim

    @property
    def attention(self) -> str:
        """The class of attention, as the tables name it."""
        if self.compress or self.family == "deepseek4":
            return "V4"
        if self.hybrid:
            return "MLA hybrid" if self.mla else "hybrid"
        if self.mla:
            return "DSA" if self.index else "MLA"
        if self.window_layers or WINDOW in self.pattern:
            return "chunked" if self.family == "llama4" else "window"
        if self.heads and self.heads_kv:
            return "MHA" if self.heads == self.heads_kv else "MQA" if self.heads_kv == 1 else "GQA"
        return ""

    def missing(self, *names: str) -> tuple[str, ...]:
        """Those of `names` that are not known."""
        return tuple(n for n in names if getattr(self, n) in (None, ""))

    def mixers(self) -> tuple[str, ...]:
        """What mixes tokens in each layer of the trunk; empty where the layers are not known."""
        if self.pattern:
            return self.pattern
        if self.layers is None:
            return ()
        n, swa, linear = self.layers, self.window_layers or 0, self.linear_layers or 0
        full = self.full_layers if self.full_layers is not None else n - swa - linear
        return _spread(n, full, WINDOW if swa else LINEAR, swa or linear, SSM if self.family in SSM_FAMILIES else "")

    def feeds(self) -> tuple[str, ...]:
        """The feed-forward of each layer: dense, a mixture of experts, or none."""
        out: list[str] = []
        for i, mixer in enumerate(self.mixers()):
            if self.family in SSM_FAMILIES:
                out.append(NONE if mixer != NONE else MOE if self.experts else DENSE)
            elif not self.experts or i < self.dense_layers or (i + 1) % self.moe_every:
                out.append(DENSE)
            else:
                out.append(MOE)
        return tuple(out)

    def facts(self) -> dict[str, Any]:
        """Every known fact as JSON values, defaults and tensor lists left out; `reading.from_lock` reads it back."""
        out: dict[str, Any] = {}
        blank = _BLANK
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("tensors", "unknown") or value == getattr(blank, f.name):
                continue
            out[f.name] = dict(value) if isinstance(value, Mapping) else list(value) if _is_tuple(value) else value
        return out

    def with_(self, **changes: Any) -> Architecture:
        """The same architecture with other facts."""
        return replace(self, **changes)

    def filled(self, other: Architecture) -> Architecture:
        """This one, with what it does not know taken from `other`."""
        changes: dict[str, Any] = {}
        for f in fields(self):
            mine, theirs, none = getattr(self, f.name), getattr(other, f.name), getattr(_BLANK, f.name)
            if mine == none and theirs != none and f.name not in ("name", "source", "unknown", "tensors"):
                changes[f.name] = theirs
        if not changes:
            return self
        source = "+".join(dict.fromkeys(s for s in (self.source, other.source) if s))
        return replace(self, **changes, source=source)


_SORTS = {f.name: str(f.type) for f in fields(Architecture)}
_SIZE, _LAYERS = 1 << 50, 1 << 14
"""What no number of an architecture comes to, and no count of its layers."""


def possible(name: str, value: Any) -> bool:
    """Whether an architecture's fact of this name can have this value. Pure."""
    return _possible(_SORTS[name], value, _LAYERS if name.endswith("layers") or name == "mtp" else _SIZE)


def _possible(sort: str, value: Any, most: int) -> bool:
    if sort.startswith("tuple["):
        return isinstance(value, (list, tuple)) and all(_possible(sort[6:9], v, most) for v in value)
    if sort.startswith("Mapping["):
        return isinstance(value, Mapping) and all(_possible("int", v, most) for v in value.values())
    if value is None:
        return sort.endswith("None")
    return type(value).__name__ == sort.partition(" ")[0] and (type(value) is not int or 0 <= value < most)


SSM_FAMILIES = frozenset({"nemotron_h", "nemotron_h_moe"})
"""Families whose layers are either a mixer or a feed-forward block, never both."""


def _spread(n: int, full: int, other: str, others: int, apart: str) -> tuple[str, ...]:
    """`full` full layers among `n`, evenly, the last of each group full (the usual order)."""
    if apart:
        kinds = [SSM] * others + [FULL] * full
        return tuple(kinds + [NONE] * (n - len(kinds)))
    if not others or not n:
        return (FULL,) * n
    if not full:
        return (other,) * n
    out = [other] * n
    for k in range(1, full + 1):
        out[min(n - 1, -(-k * n // full) - 1)] = FULL
    return tuple(out)


def _is_tuple(value: Any) -> bool:
    return isinstance(value, tuple)


_BLANK = Architecture()
