"""Importance matrices: the mean square of every input column of every linear layer, measured with MLX.

They are kept as llama.cpp keeps them (a GGUF with `NAME.in_sum2` and `NAME.counts`), so that its tools read ours and
the other way round; its older `.dat` files are read too.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

from lab.adapters import child, gguf_convert
from lab.adapters.child import Progress
from lab.adapters.texts import CALIBRATION, text_of
from lab.core import layout
from lab.core.facts import Facts, digest
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_engines import Importance


def importance(step: Importance, stage: Stage) -> Facts:
    """The matrix lies in the store's `incoming/`, measured once for all levels of a ladder; `lab gc` frees it."""
    source = Path(step.source)
    text = text_of(source, step.text, CALIBRATION, "an importance matrix")
    root = Path(step.store or stage.store)
    holding = Path(layout.incoming(str(root)))
    holding.mkdir(parents=True, exist_ok=True)
    what = [gguf_convert.key(source, "imatrix", ""), _sha(text), step.tokens, step.chunk]
    out = holding / f"imatrix-{digest(what)}.gguf"
    note = out.with_suffix(".json")
    if note.exists() and out.exists():
        known: dict[str, Any] = json.loads(note.read_text())
    else:
        args = {"source": str(source), "text": str(text), "tokens": step.tokens, "chunk": step.chunk, "out": str(out)}
        log = stage.scratch / "imatrix.log"
        known = child.run("lab.adapters.imatrix:work", args, log=log, watch=stage, what="the importance matrix")
        note.write_text(json.dumps(known))
    return {"imatrix": {"path": str(out), **{k: known[k] for k in ("sha256", "tensors", "tokens")}}}


def work(args: Facts, progress: Progress) -> Facts:
    """Runs the text through the original and writes the matrix. Runs in a child."""
    import gguf
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np
    from mlx_lm.utils import load

    source, out = Path(args["source"]), Path(args["out"])
    c = gguf_convert.config(source)
    model, tokenizer = load(str(source))
    ids = list(tokenizer.encode(Path(args["text"]).read_text(encoding="utf-8", errors="replace")))[: args["tokens"]]
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}
    names = {id(m): k for k, m in model.named_modules() if isinstance(m, nn.Linear)}
    plain = nn.Linear.__call__

    def watched(self: Any, x: Any) -> Any:
        if (name := names.get(id(self))) is not None:
            flat = x.reshape(-1, x.shape[-1]).astype(mx.float32)
            sums[name] = sums.get(name, mx.zeros(x.shape[-1])) + (flat * flat).sum(0)
            counts[name] = counts.get(name, 0) + flat.shape[0]
        return plain(self, x)

    nn.Linear.__call__ = watched
    size = args["chunk"]
    pieces = [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)] or [ids]
    for n, piece in enumerate(pieces):
        mx.eval(model(mx.array([piece])), list(sums.values()))
        progress(n + 1, len(pieces), "pieces")
    arch = gguf_convert.ARCHITECTURES[c["architectures"][0]]
    kind = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch)
    known = gguf.get_tensor_name_map(kind, c["num_hidden_layers"])
    temporary = out.with_name(f".{out.name}.lab-tmp")
    writer = gguf.GGUFWriter(str(temporary), "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [Path(args["text"]).name])
    writer.add_uint32("imatrix.chunk_count", len(pieces))
    writer.add_uint32("imatrix.chunk_size", size)
    for name in sorted(sums):
        full = known.get_name(f"{name}.weight", try_suffixes=(".weight",))
        if full:
            writer.add_tensor(f"{full}.in_sum2", np.array(sums[name], dtype=np.float32)[None, :])
            writer.add_tensor(f"{full}.counts", np.array([[counts[name]]], dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, out)
    return {"sha256": _sha(out), "tensors": len(sums), "tokens": sum(map(len, pieces))}


def read(path: Path) -> dict[str, Any]:
    """Tensor name → mean squares as float32, from llama.cpp's GGUF or older `.dat` format."""
    import gguf
    import numpy as np

    try:
        with open(path, "rb") as f:
            magic = f.read(4)
        if magic != b"GGUF":
            return _old(path)
        tensors = {t.name: np.array(t.data, dtype=np.float32) for t in gguf.GGUFReader(str(path)).tensors}
        out = {}
        for name, values in tensors.items():
            if name.endswith(".in_sum2"):
                base = name.removesuffix(".in_sum2")
                count = tensors[f"{base}.counts"].reshape(-1, 1)
                rows = values.reshape(count.shape[0], -1)
                out[base] = np.ascontiguousarray((rows / np.maximum(count, 1)).reshape(-1))
    except (OSError, ValueError, KeyError, struct.error) as e:
        raise problem(f"{path} is no importance matrix", why=str(e), do="name another, or set `imatrix: true`") from e
    if not out:
        raise problem(f"{path} is no importance matrix", why="it holds no `.in_sum2` tensors", do="name another")
    return out


def _old(path: Path) -> dict[str, Any]:
    import numpy as np

    data = path.read_bytes()
    (entries,), at, out = struct.unpack_from("<i", data), 4, {}
    for _ in range(entries):
        (length,) = struct.unpack_from("<i", data, at)
        name = data[at + 4 : at + 4 + length].decode()
        calls, values = struct.unpack_from("<ii", data, at + 4 + length)
        at += 12 + length
        out[name] = np.frombuffer(data, "<f4", values, at) / max(calls, 1)
        at += 4 * values
    return {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in out.items()}


def _sha(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
