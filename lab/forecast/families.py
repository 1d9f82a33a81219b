"""Families: what cannot be read from sizes alone — norms, biases, fused tensors — and the names each is known by."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRE = ("attn_norm", "ffn_norm")
SANDWICH = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")


@dataclass(frozen=True, slots=True)
class Traits:
    """How a family's blocks are built, where it departs from Llama's."""

    norms: tuple[str, ...] = PRE
    norm_bias: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    qk_norm: str = ""
    """`head`: one weight per head size; `wide`: one for all heads."""
    gated: bool = True
    """Whether the feed-forward has a gate beside `up`."""
    gated_q: bool = False
    """Whether the query projection carries an output gate."""
    fused_qkv: bool = False
    fused_up: bool = False
    fused_gate_up: bool = False
    sinks: bool = False
    router_bias: str = ""
    expert_bias: bool = False
    shared_gate: bool = False
    dense_beside: bool = False
    """Whether a dense feed-forward runs beside the experts."""
    layer_scale: bool = False
    keep: frozenset[str] = frozenset()
    """MLX leaves these Linear weights as they are."""
    gate_bits: int = 0
    """Bits MLX gives the router, whatever was asked; 0 for the asked ones, where it is a Linear at all."""
    router_linear: bool = True
    """Whether MLX's router is a Linear, which is quantized, or a bare array, which is not."""


_DEEPSEEK = Traits(router_bias="exp_probs_b.bias", router_linear=False)

FAMILIES: dict[str, Traits] = {
    "llama": Traits(),
    "llama4": Traits(),
    "mistral3": Traits(),
    "mistral4": Traits(router_linear=True),
    "granite": Traits(),
    "qwen2": Traits(qkv_bias=True),
    "qwen2moe": Traits(qkv_bias=True, shared_gate=True),
    "qwen3": Traits(qk_norm="head"),
    "qwen3moe": Traits(qk_norm="head"),
    "qwen3next": Traits(
        norms=("attn_norm", "post_attention_norm"), qk_norm="head", gated_q=True, shared_gate=True, gate_bits=8
    ),
    "qwen35": Traits(norms=("attn_norm", "post_attention_norm"), qk_norm="head", gated_q=True),
    "qwen35moe": Traits(
        norms=("attn_norm", "post_attention_norm"), qk_norm="head", gated_q=True, shared_gate=True, gate_bits=8
    ),
    "phi3": Traits(fused_qkv=True, fused_up=True),
    "gemma2": Traits(norms=SANDWICH),
    "gemma3": Traits(norms=SANDWICH, qk_norm="head"),
    "gemma4": Traits(
        norms=SANDWICH, qk_norm="head", layer_scale=True, dense_beside=True, fused_gate_up=True, gate_bits=8
    ),
    "gemma4e": Traits(norms=SANDWICH, qk_norm="head", layer_scale=True),
    "gpt-oss": Traits(
        norms=("attn_norm", "post_attention_norm"),
        qkv_bias=True,
        o_bias=True,
        sinks=True,
        router_bias="ffn_gate_inp.bias",
        expert_bias=True,
    ),
    "deepseek2": _DEEPSEEK,
    "deepseek32": _DEEPSEEK,
    "deepseek4": Traits(router_linear=False),
    "glm-dsa": _DEEPSEEK,
    "glm4moe": Traits(
        norms=("attn_norm", "post_attention_norm"),
        qkv_bias=True,
        router_bias="exp_probs_b.bias",
        router_linear=False,
    ),
    "minimax-m2": Traits(qk_norm="wide", router_bias="exp_probs_b.bias", gate_bits=8),
    "minimax-m3": Traits(qk_norm="head", router_bias="exp_probs_b.bias", gate_bits=8),
    "mimo2": Traits(sinks=True, router_bias="exp_probs_b.bias", router_linear=False),
    "kimi-linear": _DEEPSEEK,
    "nemotron_h": Traits(norms=("attn_norm",), gated=False),
    "nemotron_h_moe": Traits(norms=("attn_norm",), gated=False, router_bias="exp_probs_b.bias", router_linear=False),
    "bert": Traits(gated=False, norm_bias=True, qkv_bias=True, o_bias=True, ffn_bias=True),
}
"""llama.cpp's name of a family → its traits. A family that is not here is unknown."""

MODEL_TYPES = {
    "mistral": "llama",
    "ministral": "llama",
    "ministral3": "mistral3",
    "mixtral": "llama",
    "granite": "granite",
    "llama4_text": "llama4",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_5": "qwen35",
    "qwen3_5_text": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "gemma3_text": "gemma3",
    "gemma4_text": "gemma4",
    "gpt_oss": "gpt-oss",
    "deepseek_v2": "deepseek2",
    "deepseek_v3": "deepseek2",
    "kimi_k2": "deepseek2",
    "deepseek_v32": "deepseek32",
    "deepseek_v4": "deepseek4",
    "glm_moe_dsa": "glm-dsa",
    "glm4_moe": "glm4moe",
    "glm4_moe_lite": "deepseek2",
    "minimax": "minimax-m2",
    "minimax_m2": "minimax-m2",
    "minimax_m3": "minimax-m3",
    "mimo_v2_flash": "mimo2",
    "kimi_linear": "kimi-linear",
    "nemotron_h": "nemotron_h",
    "bert": "bert",
}
"""`model_type` of a config.json → llama.cpp's family, where the two differ."""

_BY_NAME = (
    (r"deepseek.?v4", "deepseek4"),
    (r"deepseek.?v3\.2", "deepseek32"),
    (r"r1.*distill.*llama|r1.*llama", "llama"),
    (r"r1.*distill.*qwen", "qwen2"),
    (r"r1.*qwen3", "qwen3"),
    (r"deepseek|kimi.?k2|moonlight", "deepseek2"),
    (r"kimi.?linear", "kimi-linear"),
    (r"glm.?5\.3.?flash|kimi.?k3", ""),
    (r"glm.?5", "glm-dsa"),
    (r"glm.?4\.7.?flash", "deepseek2"),
    (r"glm.?4\.[5-9]", "glm4moe"),
    (r"minimax.?m3", "minimax-m3"),
    (r"minimax.?m2", "minimax-m2"),
    (r"mimo.?v2", "mimo2"),
    (r"nemotron.?(3|nano.?9b|h)", "nemotron_h"),
    (r"qwen3.?(next|coder.?next)", "qwen3next"),
    (r"qwen3\.[5-9]|tmax", "qwen35"),
    (r"qwen3", "qwen3"),
    (r"qwen2|qwq", "qwen2"),
    (r"gemma.?4.*e[24]b", "gemma4e"),
    (r"gemma.?4", "gemma4"),
    (r"gemma.?3n", ""),
    (r"gemma.?3", "gemma3"),
    (r"gemma.?2", "gemma2"),
    (r"gpt.?oss", "gpt-oss"),
    (r"llama.?4", "llama4"),
    (r"llama|mixtral|codestral|magistral", "llama"),
    (r"ministral.?3", "mistral3"),
    (r"mistral.?small.?4", "mistral4"),
    (r"mistral|ministral|devstral", "llama"),
    (r"granite", "granite"),
    (r"phi", "phi3"),
    (r"bge|bert|e5-", "bert"),
)
_MOE = {"qwen3": "qwen3moe", "qwen2": "qwen2moe", "qwen35": "qwen35moe", "nemotron_h": "nemotron_h_moe"}


def traits(family: str) -> Traits:
    """The traits of a family; Llama's where it is not known. Pure."""
    return FAMILIES.get(family, FAMILIES["llama"])


def by_model_type(model_type: str, experts: bool) -> str:
    """llama.cpp's family for a `model_type`; empty where it is not known. Pure."""
    family = MODEL_TYPES.get(model_type, model_type if model_type in FAMILIES else "")
    return _MOE.get(family, family) if experts else family


def by_name(name: str, experts: bool) -> str:
    """llama.cpp's family for a model's or family's published name; empty where it is not known. Pure."""
    lower = name.lower()
    for pattern, family in _BY_NAME:
        if re.search(pattern, lower):
            return _MOE.get(family, family) if experts else family
    return ""
