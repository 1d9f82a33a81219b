"""Architectures read from what describes a model: its config.json, its GGUF header, a table's row, or a lock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from lab.forecast import families
from lab.forecast.architecture import FULL, LINEAR, NONE, SSM, WINDOW, Architecture, possible
from lab.forecast.gguf_mix import Tensor
from lab.forecast.gguf_types import IDS

_KINDS = {
    "full_attention": FULL, "sliding_attention": WINDOW, "chunked_attention": WINDOW, "linear_attention": LINEAR,
}  # fmt: skip
_HYBRID = {"M": SSM, "*": FULL, "-": NONE, "E": NONE}


def from_config(config: Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture that a Hugging Face `config.json` describes. Pure.

    Multimodal configs are read for their text model; the tower is noted as not known.
    """
    outer, c = config, _text(config)
    experts = int(_first(c, "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts") or 0)
    family = families.by_model_type(str(c.get("model_type") or outer.get("model_type") or ""), bool(experts))
    heads, width = _int(c, "num_attention_heads"), _int(c, "hidden_size")
    head_dim = _int(c, "head_dim") or (width // heads if width and heads and not c.get("kv_lora_rank") else None)
    layers = _int(c, "num_hidden_layers")
    pattern = _pattern(c, layers)
    if family == "gemma4" and c.get("hidden_size_per_layer_input"):
        family = "gemma4e"
    unknown = [] if family else [f"model_type {c.get('model_type')!r} is not known: its tensors cannot be counted"]
    vision = any(k in outer for k in ("vision_config", "audio_config", "vision_tower"))
    if vision:
        unknown.append("the image or audio tower is not counted")
    window = _int(c, "sliding_window", "attention_chunk_size")
    if c.get("use_sliding_window") is False or (window and not pattern and family in ("qwen2", "llama", "phi3")):
        window = None
    index = {"heads": _int(c, "index_n_heads"), "dim": _int(c, "index_head_dim"), "top": _int(c, "index_topk")}
    return Architecture(
        name=name or str(c.get("_name_or_path") or ""),
        family=family,
        layers=layers,
        width=width,
        heads=heads,
        heads_kv=_int(c, "num_key_value_heads", "multi_query_group_num") or heads,
        head_dim=head_dim,
        v_head_dim=_int(c, "v_head_dim"),
        ffn=_int(c, "intermediate_size", "ffn_hidden_size"),
        vocab=_int(c, "vocab_size"),
        tied=_tied(c, outer, family),
        experts=experts,
        experts_used=_int(c, "num_experts_per_tok", "moe_topk", "top_k_experts") or 0,
        shared_experts=_int(c, "n_shared_experts", "num_shared_experts") or 0,
        expert_ffn=_int(c, "moe_intermediate_size") or (_int(c, "intermediate_size") if experts else None),
        shared_ffn=_int(c, "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
        dense_layers=_dense_layers(c),
        moe_every=_int(c, "interleave_moe_layer_step", "decoder_sparse_step") or 1,
        latent=_int(c, "moe_latent_size"),
        kv_rank=_int(c, "kv_lora_rank"),
        q_rank=_int(c, "q_lora_rank"),
        rope_dim=_int(c, "qk_rope_head_dim"),
        nope_dim=_int(c, "qk_nope_head_dim"),
        window=window,
        pattern=pattern,
        full_layers=pattern.count(FULL) if pattern else None,
        window_layers=pattern.count(WINDOW) if pattern else None,
        linear_layers=pattern.count(LINEAR) + pattern.count(SSM) if pattern else None,
        global_head_dim=_int(c, "global_head_dim"),
        global_heads_kv=_int(c, "num_global_key_value_heads"),
        window_heads_kv=_int(c, "swa_num_key_value_heads"),
        window_head_dim=_int(c, "swa_head_dim"),
        window_v_head_dim=_int(c, "swa_v_head_dim"),
        kv_shared_layers=_int(c, "num_kv_shared_layers") or 0,
        k_eq_v=bool(c.get("attention_k_eq_v")),
        double_wide=bool(c.get("use_double_wide_mlp")),
        ple=_int(c, "hidden_size_per_layer_input") or 0,
        ple_vocab=_int(c, "vocab_size_per_layer_input") or 0,
        ssm=_ssm(c),
        index={k: v for k, v in index.items() if v} if index["dim"] else {},
        compress=tuple(int(r) for r in c.get("compress_ratios") or ())[:layers],
        mtp=_int(c, "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules") or 0,
        context=_int(c, "max_position_embeddings", "max_seq_len"),
        vision=vision,
        causal=family != "bert",
        dtype=_dtype(c, outer),
        source="config",
        unknown=tuple(unknown),
    )


def from_gguf(meta: Mapping[str, Any], tensors: Iterable[tuple[str, tuple[int, ...], int | str]]) -> Architecture:
    """The architecture in a GGUF header: its metadata and its tensors `(name, shape, type)`, row length first. Pure."""
    arch = str(meta.get("general.architecture") or "")
    listed = tuple(Tensor(n, tuple(s), IDS.get(t, str(t)) if isinstance(t, int) else t.upper()) for n, s, t in tensors)
    names = {t.name: t for t in listed}

    def get(key: str) -> Any:
        return meta.get(f"{arch}.{key}")

    def count(key: str) -> int | None:
        value = get(key)
        if isinstance(value, (list, tuple)):
            value = max(value, default=None)
        return int(value) if value is not None else None

    nextn = count("nextn_predict_layers") or 0
    layers = count("block_count")
    heads, width = count("attention.head_count"), count("embedding_length")
    head_dim = count("attention.key_length") or (width // heads if width and heads else None)
    embd = names.get("token_embd.weight")
    rank, split = count("attention.kv_lora_rank"), any(".attn_k_b.weight" in n for n in names)
    key_mla = count("attention.key_length_mla")
    rope = count("rope.dimension_count")
    trunk = layers - nextn if layers is not None else None
    known = arch in families.FAMILIES
    inner = count("feed_forward_length") if count("expert_count") else None
    return Architecture(
        name=str(meta.get("general.name") or ""),
        family=arch,
        layers=trunk,
        width=width,
        heads=heads,
        heads_kv=count("attention.head_count_kv") or heads,
        head_dim=head_dim,
        v_head_dim=count("attention.value_length_mla") or count("attention.value_length"),
        ffn=count("feed_forward_length"),
        vocab=embd.shape[1] if embd and len(embd.shape) > 1 else count("vocab_size"),
        tied="output.weight" not in names if names else None,
        experts=count("expert_count") or 0,
        experts_used=count("expert_used_count") or 0,
        shared_experts=count("expert_shared_count") or 0,
        expert_ffn=count("expert_feed_forward_length") or inner,
        shared_ffn=count("expert_shared_feed_forward_length"),
        dense_layers=count("leading_dense_block_count") or 0,
        moe_every=count("interleave_moe_layer_step") or 1,
        latent=count("moe_latent_size"),
        kv_rank=rank,
        q_rank=count("attention.q_lora_rank"),
        rope_dim=rope if rank else None,
        nope_dim=(key_mla or head_dim or 0) - (rope or 0) if rank else None,
        mla_split=split or not names,
        window=count("attention.sliding_window"),
        pattern=_header_pattern(get, arch, trunk, names),
        global_head_dim=head_dim if count("attention.key_length_swa") else None,
        window_head_dim=count("attention.key_length_swa"),
        window_v_head_dim=count("attention.value_length_swa"),
        kv_shared_layers=count("attention.shared_kv_layers") or 0,
        ple=count("embedding_length_per_layer_input") or 0,
        ssm=_header_ssm(count, arch),
        index=_header_index(count),
        compress=tuple(get("attention.compress_ratios") or ())[: trunk or 0],
        mtp=nextn,
        context=count("context_length"),
        causal=get("attention.causal") is not False and arch != "bert",
        parameters=sum(t.weights for t in listed) or None,
        tensors=listed,
        source="header",
        unknown=() if known else (f"architecture {arch!r} is not known: cache and speed are estimates",),
    )


def from_row(row: Mapping[str, str]) -> Architecture:
    """The architecture in a row of a table with the columns of `architectures.csv` or `size_truth.csv`. Pure."""

    def n(key: str) -> int | None:
        text = (row.get(key) or "").strip()
        return int(float(text)) if text else None

    experts = n("n_experts") or 0
    name, label = row.get("model") or "", row.get("family") or ""
    family = families.by_name(name, bool(experts)) or families.by_name(label, bool(experts))
    extra: dict[str, Any] = {}
    for column in ("swa_or_global_overrides", "ssm_params", "index_params"):
        if text := row.get(column):
            extra.update(json.loads(text))
    tied = (row.get("tied_embeddings") or "").strip().lower()
    heads, width, head_dim = n("n_head"), n("d_model"), n("head_dim")
    kv_rank = n("kv_lora_rank")
    kind = row.get("attention_class") or ""
    if head_dim is None and heads and width and not kv_rank:
        head_dim = width // heads
    chunk = extra.get("attention_chunk_size")
    swa = n("n_swa_layers")
    layers = n("n_layer")
    if family == "llama4" and chunk and layers:
        swa, extra["full"] = layers * 3 // 4, layers // 4
    index = {"heads": extra.get("index_n_heads"), "dim": extra.get("index_head_dim"), "top": extra.get("index_topk")}
    config = {**extra, "hybrid": True}
    return Architecture(
        name=name,
        family=family,
        layers=layers,
        width=width,
        heads=heads,
        heads_kv=n("n_head_kv"),
        head_dim=head_dim,
        v_head_dim=n("v_head_dim") if kv_rank or n("v_head_dim") != head_dim else None,
        ffn=n("d_ff_dense"),
        vocab=n("vocab"),
        tied={"true": True, "false": False}.get(tied),
        experts=experts,
        experts_used=n("n_experts_used") or 0,
        shared_experts=n("n_shared_experts") or 0,
        expert_ffn=n("moe_d_ff"),
        dense_layers=n("first_dense_layers") or 0,
        kv_rank=kv_rank if "V4" not in kind else None,
        q_rank=n("q_lora_rank"),
        rope_dim=n("qk_rope_head_dim"),
        nope_dim=n("qk_nope_head_dim"),
        window=n("sliding_window") or (int(chunk) if chunk else None),
        full_layers=n("n_full_attn_layers") or extra.get("full"),
        window_layers=swa,
        linear_layers=n("n_linear_or_ssm_layers"),
        global_head_dim=extra.get("global_head_dim"),
        global_heads_kv=extra.get("num_global_key_value_heads"),
        window_heads_kv=extra.get("swa_num_key_value_heads"),
        window_head_dim=extra.get("swa_head_dim"),
        window_v_head_dim=extra.get("swa_v_head_dim"),
        k_eq_v=bool(extra.get("global_head_dim")) and family == "gemma4",
        ssm=_ssm(config),
        index={k: int(v) for k, v in index.items() if v} if index["dim"] else {},
        compress=tuple(extra.get("compress_ratios") or ())[:layers],
        mtp=n("mtp_layers") or 0,
        context=n("max_context"),
        shared_ffn=extra.get("shared_ffn"),
        moe_every=int(extra.get("moe_every", 1)),
        latent=extra.get("latent"),
        ple=int(extra.get("ple", 0)),
        kv_shared_layers=int(extra.get("kv_shared_layers", 0)),
        double_wide=bool(extra.get("double_wide")),
        tower=extra.get("tower"),
        vision=bool(extra.get("vision")),
        dtype=str(extra.get("dtype", "BF16")),
        causal=family != "bert",
        source="table",
        unknown=() if family else ("the family is not known",),
    )


def from_facts(facts: Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture in a lock's `model` block: facts of ours under `shape`, else the model's own `config`. Pure.

    `config` holds a config.json's values, or those of a GGUF header (without tensors, so its own bytes are not known).
    """
    if isinstance(shape := facts.get("shape"), Mapping):
        return from_lock(shape, name)
    config = facts.get("config")
    if not isinstance(config, Mapping):
        return Architecture(name=name, unknown=("the lock holds no architecture",))
    try:
        found = from_gguf(config, ()) if "general.architecture" in config else from_config(config, name)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        return Architecture(name=name, unknown=("the lock's architecture cannot be read",))
    if odd := tuple(f"{k} cannot be {str(v)[:40]!r}" for k, v in found.facts().items() if not possible(k, v)):
        return Architecture(name=name, unknown=odd)
    return found.with_(name=name or found.name)


def from_lock(facts: Mapping[str, Any], name: str = "") -> Architecture:
    """The architecture that `Architecture.facts()` wrote into a lock; unknown keys are left out. Pure.

    What cannot be so, such as a text for a width, is not known: counting with it could take all memory.
    """
    known = {f.name for f in fields(Architecture)} - {"tensors", "unknown"}
    values: dict[str, Any] = {}
    odd: list[str] = []
    for key, value in facts.items():
        if key in known and possible(key, value):
            values[key] = tuple(value) if isinstance(value, list) else value
        elif key in known:
            odd.append(f"the lock's {key} cannot be {str(value)[:40]!r}")
    values.setdefault("name", name)
    return Architecture(**{**values, "source": "lock", "unknown": tuple(odd)})


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(key), Mapping):
            return {**{k: v for k, v in config.items() if k in ("tie_word_embeddings",)}, **inner}
    return config


def _first(c: Mapping[str, Any], *names: str) -> Any:
    return next((c[n] for n in names if c.get(n) is not None), None)


def _int(c: Mapping[str, Any], *names: str) -> int | None:
    value = _first(c, *names)
    if isinstance(value, (list, tuple)):
        value = max((v for v in value if isinstance(v, (int, float))), default=None)
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _tied(c: Mapping[str, Any], outer: Mapping[str, Any], family: str) -> bool:
    said = _first(c, "tie_word_embeddings")
    if said is None:
        said = outer.get("tie_word_embeddings")
    return bool(said) if said is not None else family.startswith("gemma")


def _dense_layers(c: Mapping[str, Any]) -> int:
    if (k := _int(c, "first_k_dense_replace")) is not None:
        return k
    listed = c.get("mlp_only_layers")
    freq = c.get("moe_layer_freq")
    if isinstance(freq, list) and freq:
        return next((i for i, v in enumerate(freq) if v), len(freq))
    return len(listed) if isinstance(listed, list) and listed == list(range(len(listed))) else 0


def _pattern(c: Mapping[str, Any], layers: int | None) -> tuple[str, ...]:
    if isinstance(kinds := c.get("layer_types"), list) and all(k in _KINDS for k in kinds):
        return tuple(_KINDS[k] for k in kinds)
    if isinstance(text := c.get("hybrid_override_pattern"), str) and set(text) <= set(_HYBRID):
        return tuple(_HYBRID[k] for k in text)
    if layers and isinstance(swa := c.get("hybrid_layer_pattern"), list):
        return tuple(WINDOW if k else FULL for k in swa[:layers])
    if layers and (every := _int(c, "full_attention_interval")):
        return tuple(FULL if (i + 1) % every == 0 else LINEAR for i in range(layers))
    every = _int(c, "sliding_window_pattern", "_sliding_window_pattern")
    model = str(c.get("model_type") or "")
    if not every and layers and c.get("sliding_window"):
        every = {"gemma3_text": 6, "gemma3": 6, "gemma2": 2}.get(model)
    if model == "llama4_text" and layers:
        every = 4
    if layers and every:
        return tuple(FULL if (i + 1) % every == 0 else WINDOW for i in range(layers))
    return ()


def _ssm(c: Mapping[str, Any]) -> dict[str, int]:
    if "linear_num_value_heads" in c:
        names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
        out = dict(zip(("k_heads", "v_heads", "k_dim", "v_dim"), (int(c[n]) for n in names), strict=True))
        return {**out, "conv": int(c.get("linear_conv_kernel_dim", 4))}
    if "mamba_num_heads" in c:
        return {
            "heads": int(c["mamba_num_heads"]),
            "dim": int(c["mamba_head_dim"]),
            "state": int(c.get("ssm_state_size", 128)),
            "groups": int(c.get("n_groups", 8)),
            "conv": int(c.get("conv_kernel", 4)),
        }
    if isinstance(linear := c.get("linear_attn_config"), Mapping):
        conv = int(linear.get("short_conv_kernel_size", 4))
        return {"heads": int(linear["num_heads"]), "dim": int(linear["head_dim"]), "conv": conv}
    return {}


def _dtype(c: Mapping[str, Any], outer: Mapping[str, Any]) -> str:
    quant = outer.get("quantization_config")
    if isinstance(quant, Mapping) and quant.get("quant_method") in ("fp8", "mxfp4"):
        return "FP8" if quant["quant_method"] == "fp8" else "MXFP4"
    text = str(_first(c, "torch_dtype", "dtype") or _first(outer, "torch_dtype", "dtype") or "bfloat16")
    return {"float16": "F16", "float32": "F32"}.get(text.removeprefix("torch."), "BF16")


def _header_pattern(get: Any, arch: str, layers: int | None, names: Mapping[str, Tensor]) -> tuple[str, ...]:
    if not layers:
        return ()
    listed = get("attention.sliding_window_pattern")
    if isinstance(listed, (list, tuple)):
        return tuple(WINDOW if w else FULL for w in listed[:layers])
    if any(".ssm_" in n for n in names):
        return tuple(
            (SSM if f"blk.{i}.ssm_in.weight" in names and arch.startswith("nemotron") else LINEAR)
            if f"blk.{i}.ssm_conv1d.weight" in names or f"blk.{i}.ssm_conv1d_q.weight" in names
            else FULL
            if f"blk.{i}.attn_output.weight" in names
            else NONE
            for i in range(layers)
        )
    if not get("attention.sliding_window"):
        return ()
    every = listed if isinstance(listed, int) else {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "llama4": 4}.get(arch)
    return tuple(FULL if (i + 1) % every == 0 else WINDOW for i in range(layers)) if every else ()


def _header_ssm(count: Any, arch: str) -> dict[str, int]:
    inner, state, rank = count("ssm.inner_size"), count("ssm.state_size"), count("ssm.time_step_rank")
    if not inner or not state or not rank:
        return {}
    conv, groups = count("ssm.conv_kernel") or 4, count("ssm.group_count") or 1
    if arch.startswith("qwen"):
        return {"k_heads": groups, "v_heads": rank, "k_dim": state, "v_dim": inner // rank, "conv": conv}
    return {"heads": rank, "dim": inner // rank, "state": state, "groups": groups, "conv": conv}


def _header_index(count: Any) -> dict[str, int]:
    found = {"heads": "head_count", "dim": "key_length", "top": "top_k"}
    out = {k: count(f"attention.indexer.{v}") for k, v in found.items()}
    return {k: int(v) for k, v in out.items() if v} if out["dim"] else {}
