"""A GGUF of a given shape with meaningless weights: for measuring an engine without any download."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from lab.forecast import gguf_mix, inventory
from lab.forecast.architecture import Architecture
from lab.forecast.gguf_types import BLOCKS, IDS, tensor_bytes

_NUMBERS = {name: number for number, name in IDS.items()}
_ALIGN = 32
_HALF = struct.pack("<e", 0.01)
_BLOCKS = {
    "F32": struct.pack("<f", 0.01),
    "F16": _HALF,
    "BF16": b"\x24\x3c",
    "Q8_0": _HALF + bytes(range(32)),
    "Q4_0": _HALF + b"\x79" * 16,
    "Q4_K": _HALF + _HALF + b"\x21" * 12 + b"\x79" * 128,
    "Q5_K": _HALF + _HALF + b"\x21" * 12 + b"\x55" * 32 + b"\x79" * 128,
    "Q6_K": b"\x79" * 128 + b"\x55" * 64 + b"\x01" * 16 + _HALF,
    "Q3_K": b"\x55" * 32 + b"\x79" * 64 + b"\x21" * 12 + _HALF,
    "Q2_K": b"\x21" * 16 + b"\x79" * 64 + _HALF + _HALF,
}
"""One block of each type that decodes to small finite numbers."""


def write(path: Path, arch: Architecture, type: str = "F16", metadata: Mapping[str, Any] | None = None) -> int:
    """A GGUF at `path` whose tensors are those of `arch`, all that may be quantized in `type`; its bytes.

    Rows that do not fill the type's blocks stay F16. Types outside the table become sparse zeros.
    """
    chosen: dict[str, tuple[str, tuple[int, ...]]] = {}
    for t in inventory.tensors(arch):
        fits = gguf_mix.quantizable(t, arch.family) and t.shape[0] % BLOCKS[type][0] == 0
        chosen[t.name] = (type if fits else t.type, t.shape)
    values = {**_metadata(arch), **(metadata or {})}
    with path.open("wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(chosen), len(values)))
        for key, value in values.items():
            _key(f, key, value)
        at = 0
        for name, (kind, shape) in chosen.items():
            _text(f, name)
            f.write(struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
            f.write(struct.pack("<IQ", _NUMBERS[kind], at))
            at += -(-tensor_bytes(kind, shape) // _ALIGN) * _ALIGN
        f.write(b"\0" * (-f.tell() % _ALIGN))
        for kind, shape in chosen.values():
            _data(f, kind, tensor_bytes(kind, shape))
        f.truncate()
    return path.stat().st_size


def _metadata(a: Architecture) -> dict[str, Any]:
    """What llama.cpp asks of a header: hyper-parameters, and that there is no vocabulary."""
    p, heads = a.family, a.heads or 0
    out: dict[str, Any] = {
        "general.architecture": p,
        "general.name": a.name or "random",
        f"{p}.block_count": a.layers,
        f"{p}.context_length": a.context or 4096,
        f"{p}.embedding_length": a.width,
        f"{p}.feed_forward_length": a.ffn or a.expert_ffn,
        f"{p}.attention.head_count": heads,
        f"{p}.attention.head_count_kv": a.heads_kv or heads,
        f"{p}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{p}.vocab_size": a.vocab,
        f"{p}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "no_vocab",
    }
    if a.head_dim and not a.mla:
        out |= {f"{p}.attention.key_length": a.head_dim, f"{p}.attention.value_length": a.values or a.head_dim}
        out[f"{p}.rope.dimension_count"] = a.head_dim
    if a.experts:
        out |= {f"{p}.expert_count": a.experts, f"{p}.expert_used_count": a.experts_used}
        out[f"{p}.expert_feed_forward_length"] = a.expert_ffn
    if a.window:
        out[f"{p}.attention.sliding_window"] = a.window
    if a.mla:
        rank, rope, nope = a.kv_rank or 0, a.rope_dim or 0, a.nope_dim or 0
        out |= {
            f"{p}.attention.head_count_kv": 1,
            f"{p}.attention.kv_lora_rank": rank,
            f"{p}.attention.key_length": rank + rope,
            f"{p}.attention.value_length": rank,
            f"{p}.attention.key_length_mla": nope + rope,
            f"{p}.attention.value_length_mla": a.v_head_dim,
            f"{p}.rope.dimension_count": rope,
            f"{p}.leading_dense_block_count": a.dense_layers,
            f"{p}.expert_shared_count": a.shared_experts,
            f"{p}.expert_weights_scale": 1.0,
        }
        if a.q_rank:
            out[f"{p}.attention.q_lora_rank"] = a.q_rank
    if "v_heads" in a.ssm:
        s = a.ssm
        out |= {
            f"{p}.ssm.conv_kernel": s["conv"],
            f"{p}.ssm.state_size": s["k_dim"],
            f"{p}.ssm.group_count": s["k_heads"],
            f"{p}.ssm.time_step_rank": s["v_heads"],
            f"{p}.ssm.inner_size": s["v_heads"] * s["v_dim"],
            f"{p}.full_attention_interval": len(a.mixers()) // max(1, a.full_layers or 1),
            f"{p}.rope.dimension_sections": [a.head_dim or 0, 0, 0, 0],
        }
    return {k: v for k, v in out.items() if v is not None}


def _data(f: IO[bytes], kind: str, size: int) -> None:
    block = _BLOCKS.get(kind)
    if block is None:
        f.seek(size, 1)
    else:
        chunk = block * (1 << 16)
        for at in range(0, size, len(chunk)):
            f.write(chunk[: size - at])
    f.seek(-size % _ALIGN, 1)


def _text(f: IO[bytes], text: str) -> None:
    data = text.encode()
    f.write(struct.pack("<Q", len(data)) + data)


def _key(f: IO[bytes], key: str, value: Any) -> None:
    _text(f, key)
    if isinstance(value, str):
        f.write(struct.pack("<I", 8))
        _text(f, value)
    elif isinstance(value, float):
        f.write(struct.pack("<If", 6, value))
    elif isinstance(value, list):
        f.write(struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value))
    else:
        f.write(struct.pack("<II", 4, value))
