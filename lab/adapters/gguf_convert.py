"""Convert: safetensors become a GGUF, rows at a time, so that memory stays far below the model's size.

Dense llama, mistral, qwen2 and qwen3 models with byte-level BPE tokenizers, in F32, F16 or BF16. Names, permutation and
metadata follow llama.cpp's `convert_hf_to_gguf.py`, which remains the tool for every other architecture. The order of
tensors is by layer and name, so neither sharding nor the machine changes a byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters import gguf_vocab
from lab.adapters.child import Progress
from lab.core.facts import Facts, digest
from lab.core.problem import problem

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""Class in config.json → GGUF's name of the architecture."""
VERSION = 1
"""Enters the key of a conversion: raise it when the bytes written change."""
CHUNK = 8 << 20
"""Bytes of rows converted at once."""
_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a safetensors file: where its bytes lie."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def key(source: Path, outtype: str, name: str) -> str:
    """What a conversion is made from, as a hash: the files' contents (or identities), type, name, converter."""
    files = {}
    for path in sorted(source.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja") and path.name != ".lab.json":
            real = path.resolve()
            stat = real.stat()
            # A blob is named by its content; any other file is known by its identity.
            files[path.name] = real.name if len(real.name) == 64 else [stat.st_ino, stat.st_size, stat.st_mtime_ns]
    return digest([VERSION, outtype, name, files])


def tensors(source: Path) -> list[Tensor]:
    """Every tensor of the folder's safetensors files, by layer and name. Reads headers only."""
    found: dict[str, Tensor] = {}
    for file in shards(source):
        with open(file, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            head = json.loads(f.read(size))
        for name, v in head.items():
            if name != "__metadata__":
                a, b = v["data_offsets"]
                found[name] = Tensor(str(file), name, v["dtype"], tuple(v["shape"]), 8 + size + a, 8 + size + b)
    return sorted(found.values(), key=lambda t: _order(t.name))


def shards(source: Path) -> list[Path]:
    """The files the weights are in, as the index names them, else every `*.safetensors`."""
    index = source / "model.safetensors.index.json"
    if index.exists():
        return [source / n for n in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return sorted(source.glob("*.safetensors"))


def _order(name: str) -> tuple[int, str]:
    parts = name.split(".")
    layer = next((int(p) for p in parts if p.isdigit()), -1)
    return layer, name


def config(source: Path) -> dict[str, Any]:
    """The model's config.json, refused where this converter cannot serve it."""
    try:
        c: dict[str, Any] = json.loads((source / "config.json").read_text())
    except (OSError, ValueError) as e:
        raise problem(f"{source} has no readable config.json", why=str(e), do="fetch the whole model") from e
    name = (c.get("architectures") or ["?"])[0]
    if name not in ARCHITECTURES:
        raise problem(
            f"{name} cannot be converted to GGUF by Lab",
            why=f"it converts {', '.join(ARCHITECTURES)}",
            do=gguf_vocab.EXTERNAL,
        )
    if c.get("quantization") or c.get("quantization_config"):
        raise problem(
            "a GGUF is made from unquantized weights only",
            why=f"{source} holds weights that are quantized already",
            do="declare the original as the source (`of:`)",
        )
    return c


def convert(args: Facts, progress: Progress) -> Facts:
    """Writes `out` from `source` in `type`, atomically; returns `{bytes, sha256, type, tensors}`. Runs in a child."""
    import gguf
    import numpy as np

    source, out, wanted = Path(args["source"]), Path(args["out"]), str(args["type"])
    c = config(source)
    arch_name = ARCHITECTURES[c["architectures"][0]]
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch_name)
    every = tensors(source)
    if not every:
        raise problem(f"{source} holds no safetensors files", do="fetch the whole model, or declare a GGUF")
    names = gguf.get_tensor_name_map(arch, c["num_hidden_layers"])
    plan = []
    for t in every:
        if t.name.endswith(("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")):
            continue
        if c.get("tie_word_embeddings") and t.name == "lm_head.weight":
            continue
        name = names.get_name(t.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise problem(
                f"the tensor {t.name} has no name in a GGUF of {arch_name}",
                why="the model is not the plain form of its architecture",
                do=gguf_vocab.EXTERNAL,
            )
        plan.append((name, t, _kind(wanted, t)))
    mostly = _mostly(plan)
    temporary = out.with_name(f".{out.name}.lab-tmp")
    temporary.unlink(missing_ok=True)
    writer = gguf.GGUFWriter(str(temporary), arch_name)
    _metadata(writer, c, arch_name, str(args.get("name") or source.name), _FILE_TYPES[mostly])
    if arch_name == "llama" and (scale := _rope_factors(c)) is not None:
        writer.add_tensor_info("rope_freqs.weight", scale.shape, scale.dtype, scale.nbytes)
    gguf_vocab.add(writer, source, c)
    for name, t, kind in plan:
        q = getattr(gguf.GGMLQuantizationType, kind)
        shape = gguf.quant_shape_to_byte_shape(t.shape, q) if kind == "BF16" else t.shape
        dtype = {"F32": np.float32, "F16": np.float16, "BF16": np.uint8}[kind]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(name, shape, np.dtype(dtype), size, raw_dtype=q)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    total = sum(t.end - t.start for _, t, _ in plan)
    done = 0
    if arch_name == "llama" and scale is not None:
        file.write(scale.tobytes())
        writer.write_padding(file, scale.nbytes)
    for _, t, kind in plan:
        written = 0
        for block in _blocks(t, _heads(arch_name, c, t.name)):
            data = _cast(block, kind)
            file.write(data)
            written += len(data)
            done += block.nbytes
            progress(min(done, total), total)
        writer.write_padding(file, written)
    file.flush()
    os.fsync(file.fileno())
    writer.close()
    os.replace(temporary, out)
    with open(out, "rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    return {"bytes": out.stat().st_size, "sha256": found, "type": mostly, "tensors": len(plan)}


def _kind(wanted: str, t: Tensor) -> str:
    if len(t.shape) < 2:
        return "F32"
    kind = {"F64": "F32"}.get(t.dtype, t.dtype) if wanted == "AUTO" else wanted
    if t.dtype not in ("F32", "F16", "BF16", "F64"):
        raise problem(
            f"the tensor {t.name} is {t.dtype}",
            why="a GGUF is made from F32, F16 or BF16",
            do="fetch the unquantized model",
        )
    return kind


def _mostly(plan: list[tuple[str, Tensor, str]]) -> str:
    size: dict[str, int] = {}
    for _, t, kind in plan:
        if len(t.shape) > 1:
            size[kind] = size.get(kind, 0) + t.end - t.start
    return max(size, key=lambda k: size[k]) if size else "F32"


def _heads(arch: str, c: Mapping[str, Any], name: str) -> int:
    """How many heads the rows of a tensor are to be reordered in; 0 where they stay."""
    # Hugging Face lays rotary pairs as halves of a head, llama.cpp's LLAMA side by side.
    if arch != "llama":
        return 0
    if name.endswith(("q_proj.weight", "q_proj.bias")):
        return int(c["num_attention_heads"])
    if name.endswith(("k_proj.weight", "k_proj.bias")):
        return int(c.get("num_key_value_heads") or c["num_attention_heads"])
    return 0


def _blocks(t: Tensor, heads: int) -> Iterator[Any]:
    """The tensor's rows as float32 or as they are, a few megabytes at a time, reordered within heads."""
    import numpy as np

    rows = t.shape[0] if t.shape else 1
    row = (t.end - t.start) // max(rows, 1)
    unit = rows // heads if heads else 1
    step = max(1, CHUNK // max(row * unit, 1)) * unit
    dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[t.dtype]
    with open(t.file, "rb") as f:
        f.seek(t.start)
        for first in range(0, rows, step):
            n = min(step, rows - first)
            raw = f.read(n * row)
            if len(raw) != n * row:
                raise problem(f"{t.file} is cut short", why=f"{t.name} ends beyond it", do="`lab verify` the model")
            a = np.frombuffer(raw, dtype).reshape(n, -1)
            if heads:
                a = a.reshape(n // unit, 2, unit // 2, -1).swapaxes(1, 2).reshape(n, -1)
            yield _wide(a) if t.dtype == "BF16" else a.astype(np.float32) if t.dtype == "F64" else a


class _wide:
    """bfloat16 rows, which numpy has no type for."""

    def __init__(self, bits: Any) -> None:
        self.bits = bits
        self.nbytes = int(bits.nbytes)


def _cast(block: Any, kind: str) -> bytes:
    """The rows in the type of the file."""
    import numpy as np

    if isinstance(block, _wide):
        if kind == "BF16":
            return bytes(block.bits.tobytes())
        block = (block.bits.astype("<u4") << 16).view("<f4")
    if kind == "F32":
        return bytes(block.astype("<f4").tobytes())
    if kind == "F16":
        with np.errstate(over="ignore"):
            return bytes(np.ascontiguousarray(block, "<f2").tobytes())
    u = np.ascontiguousarray(block, "<f4").view("<u4")
    return bytes(((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2").tobytes())


def _metadata(w: Any, c: Mapping[str, Any], arch: str, name: str, file_type: int) -> None:
    import gguf

    heads = c["num_attention_heads"]
    head = c.get("head_dim") or c["hidden_size"] // heads
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    w.add_type(gguf.GGUFType.MODEL)
    w.add_name(name)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(c.get("num_key_value_heads") or heads)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(float(c.get("rope_theta") or rope.get("rope_theta") or 10000.0))
    w.add_key_length(head)
    w.add_value_length(head)
    w.add_vocab_size(c["vocab_size"])
    if arch == "llama":
        w.add_rope_dimension_count(head)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif kind not in ("default", "llama3") or (kind == "llama3" and arch != "llama"):
        raise problem(
            f"rotary scaling of the kind {kind} cannot be converted",
            why="Lab converts llama3, linear and yarn",
            do=gguf_vocab.EXTERNAL,
        )
    w.add_file_type(file_type)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _rope_factors(c: Mapping[str, Any]) -> Any:
    """llama 3's frequency factors, as its converter writes them; None where the model has none."""
    import numpy as np

    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    if (rope.get("rope_type") or rope.get("type")) != "llama3":
        return None
    base = float(c.get("rope_theta") or rope.get("rope_theta") or 10000.0)
    dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    low, high, factor = rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0), rope.get("factor", 8.0)
    old = rope.get("original_max_position_embeddings", 8192)
    out = []
    for f in 1.0 / base ** (np.arange(0, dim, 2, dtype=np.float32) / dim):
        length = 2 * np.pi / f
        if length < old / high:
            out.append(1.0)
        elif length > old / low:
            out.append(factor)
        else:
            smooth = (old / length - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)
