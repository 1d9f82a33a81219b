"""Safetensors headers and what their tensors amount to, packed formats counted right. Weights are never read.

Format (https://huggingface.co/docs/safetensors): eight bytes of length, then JSON, name → dtype, shape, data_offsets.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.adapters.gguf_header import Broken, Short

LONGEST, PARTS = 32 << 20, 2_000_000
"""Bytes of the longest header, and values in it, that are read: ten times what any model has."""
SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""Bytes of one element."""
Tensors = Mapping[str, tuple[str, tuple[int, ...], int]]
"""Name → dtype, shape, bytes."""


def read(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    """The tensors and the metadata of one file. Raises Broken. Reads."""
    with open(path, "rb") as f:
        start = f.read(8)
        if len(start) < 8:
            raise Broken("the file ends inside its header")
        (length,) = struct.unpack("<Q", start)
        whole = path.stat().st_size
        if length > min(LONGEST, whole - 8):
            raise Broken(f"its header claims {length} bytes of {whole}")
        tensors, metadata = parse(start + f.read(length))
    end = 8 + length + sum(b for _, _, b in tensors.values())
    if end != whole:
        raise Broken(f"its header describes {end} bytes, the file has {whole}")
    return tensors, metadata


def parse(data: bytes) -> tuple[Tensors, Mapping[str, str]]:
    """The tensors and the metadata in the first bytes of a file. Raises Short or Broken. Pure."""
    if len(data) < 8:
        raise Short("the file ends inside its header")
    (length,) = struct.unpack_from("<Q", data)
    if length > LONGEST:
        raise Broken(f"its header claims {length} bytes")
    if len(data) < 8 + length:
        raise Short(str(8 + length))
    head = bytes(data[8 : 8 + length])
    if sum(head.count(c) for c in b"[{,") > PARTS:
        raise Broken("its header holds too many values")
    try:
        found = json.loads(head)
        told = found.pop("__metadata__", None)
        metadata = {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}
        out, places = {}, []
        for name, t in found.items():
            begin, end = (int(n) for n in t["data_offsets"])
            shape, dtype = tuple(int(n) for n in t["shape"]), str(t["dtype"])
            if begin < 0 or end < begin or any(n < 0 for n in shape) or len(shape) > 64:
                raise Broken(f"tensor {name!r} has no sensible place")
            if dtype in SIZES and math.prod(shape) * SIZES[dtype] != end - begin:
                raise Broken(f"tensor {name!r} has {end - begin} bytes, which its shape does not fill")
            out[str(name)] = (dtype, shape, end - begin)
            places.append((begin, end, name))
        at = 0
        for begin, end, name in sorted(places):
            if begin != at:
                raise Broken(f"tensor {name!r} begins at {begin}, where the one before ends at {at}")
            at = end
        return out, metadata
    except Broken:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise Broken("its header is not valid") from e


def summary(tensors: Iterable[Tensors], config: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, bytes of tensors, and precision of a model's shards together. Pure.

    Packed integers count as the weights they hold; scales, zero points and indices count as no parameters.
    """
    known: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for shard in tensors:
        known.update(shard)
    mlx = config.get("quantization") if isinstance(config.get("quantization"), Mapping) else None
    other = config.get("quantization_config") if isinstance(config.get("quantization_config"), Mapping) else None
    method = str((other or {}).get("quant_method", "")).lower() if mlx is None else ""
    bits = _number((mlx or other or {}).get("bits")) or _number((other or {}).get("w_bit"))
    parameters, weighs = 0, Counter[str]()
    for name, (dtype, shape, size) in known.items():
        elements = 1
        for n in shape:
            elements *= n
        stem, _, last = name.rpartition(".")
        if mlx is not None and f"{stem}.scales" in known and last in ("weight", "scales", "biases"):
            own = mlx.get(stem)
            b = _number(own.get("bits")) if isinstance(own, Mapping) else bits
            if last == "weight" and dtype == "U32" and b:
                parameters += elements * 32 // b
                weighs[f"{b}-bit"] += size
            continue
        if method in ("gptq", "awq") and last in ("qweight", "qzeros", "scales", "g_idx"):
            if last == "qweight" and bits:
                parameters += elements * 32 // bits
                weighs[f"{bits}-bit"] += size
            continue
        if name.endswith(("_scale_inv", ".weight_scale", ".input_scale")) or (
            name.endswith("_scales") and f"{name[:-7]}_blocks" in known
        ):
            continue
        if name.endswith("_blocks") and f"{name[:-7]}_scales" in known:
            parameters += elements * 2
            weighs["MXFP4"] += size
            continue
        parameters += elements
        weighs[dtype] += size
    group = _number((mlx or other or {}).get("group_size"))
    precision = weighs.most_common(1)[0][0] if weighs else ""
    return {
        "params": parameters,
        "tensor_bytes": sum(size for _, _, size in known.values()),
        "precision": f"{precision} g{group}" if group and group > 0 and precision.endswith("-bit") else precision,
        "format": "mlx" if mlx is not None else method if method in ("gptq", "awq") else "safetensors",
    }


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
