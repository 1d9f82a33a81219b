"""The installed llama.cpp's quantizer, and what a GGUF's tensors really are. Imported in children only."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from lab.core.facts import Facts
from lab.core.problem import problem
from lab.forecast.gguf_types import FILE_TYPES

BUFFER = 256 << 20
"""Bytes of tensor rows that are quantized at once."""


def version() -> str:
    """`llama-cpp-python 0.3.36`."""
    import llama_cpp

    return f"llama-cpp-python {llama_cpp.__version__}"


def offered() -> dict[str, int]:
    """The types this llama.cpp quantizes to: name → its number."""
    import llama_cpp

    prefix = "LLAMA_FTYPE_MOSTLY_"
    found = {n[len(prefix) :]: getattr(llama_cpp, n) for n in dir(llama_cpp) if n.startswith(prefix)}
    return {**found, "F32": llama_cpp.LLAMA_FTYPE_ALL_F32}


def quantize(source: Path, out: Path, args: Facts) -> None:
    """`source` in the declared type is written to `out`; a problem where the engine refuses."""
    import llama_cpp

    kinds = offered()
    name = str(args["type"])
    if name not in kinds:
        raise problem(
            f"the installed llama.cpp does not offer {name}",
            why=f"{version()} offers {', '.join(sorted(kinds))}",
            do="choose one of these, or install a newer llama-cpp-python",
        )
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.nthread, p.pure = kinds[name], os.cpu_count() or 1, bool(args.get("pure"))
    # Rows held in memory at once: far below any model that matters; the default is 8 GiB.
    p.max_buf_size = BUFFER
    for field, key in (("output_tensor_type", "output"), ("token_embedding_type", "embedding")):
        if args.get(key):
            setattr(p, field, _ggml_type(str(args[key])))
    kept: list[Any] = []
    if args.get("imatrix"):
        p.imatrix = _imatrix(Path(args["imatrix"]), kept)
    if args.get("tensors"):
        p.tt_overrides = _overrides(args["tensors"], kept)
    status = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(out), p)
    if status:
        out.unlink(missing_ok=True)
        need = FILE_TYPES[name].imatrix == "required" and not args.get("imatrix")
        raise problem(
            f"llama.cpp refused to quantize to {name}",
            why="it takes an importance matrix" if need else f"it answered {status}; its log says more",
            do="set `imatrix: true`" if need else "see the log of this resource",
        )


def types(file: Path, name: str) -> dict[str, Any]:
    """`{types, bits_per_weight, fallback}` from the tensors themselves, not from the header's word.

    `fallback` maps tensors that did not get a type of the declared family to the type they got.
    """
    import gguf

    reader = gguf.GGUFReader(str(file))
    count: dict[str, int] = {}
    weights = size = 0
    fallback: dict[str, str] = {}
    block = _FALLBACKS.get(FILE_TYPES[name].default, ())
    for t in reader.tensors:
        kind = t.tensor_type.name
        count[kind] = count.get(kind, 0) + 1
        weights += int(t.n_elements)
        size += int(t.n_bytes)
        if kind in block and int(t.shape[0]) % 256:
            fallback[str(t.name)] = kind
    return {"types": dict(sorted(count.items())), "bits_per_weight": round(size * 8 / weights, 4), "fallback": fallback}


_FALLBACKS = {
    **dict.fromkeys(
        ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0"), ("Q4_0", "Q5_0", "Q5_1", "Q8_0", "F16")
    ),
    **dict.fromkeys(
        ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"),
        ("IQ4_NL", "Q4_0", "Q5_0", "Q5_1", "Q8_0", "F16"),
    ),
}
"""Type made of blocks of 256 → what llama.cpp silently puts in its place where rows do not fill them."""


def _ggml_type(name: str) -> int:
    import gguf

    try:
        return int(gguf.GGMLQuantizationType[name.upper()])
    except KeyError:
        known = ", ".join(t.name for t in gguf.GGMLQuantizationType)
        raise problem(f"{name} is no type of a tensor", why=f"known are {known}", do="name one of these") from None


def _imatrix(path: Path, kept: list[Any]) -> Any:
    import llama_cpp

    from lab.adapters import imatrix

    data = imatrix.read(path)
    entries = (llama_cpp.llama_model_imatrix_data * (len(data) + 1))()
    for i, (name, values) in enumerate(sorted(data.items())):
        kept.append(values)
        entries[i].name = name.encode()
        entries[i].data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entries[i].size = values.size
    kept.append(entries)
    return entries


def _overrides(tensors: Facts, kept: list[Any]) -> Any:
    import llama_cpp

    entries = (llama_cpp.llama_model_tensor_override * (len(tensors) + 1))()
    for i, (pattern, kind) in enumerate(tensors.items()):
        entries[i].pattern = pattern.encode()
        entries[i].type = _ggml_type(str(kind))
    kept.append(entries)
    return entries
