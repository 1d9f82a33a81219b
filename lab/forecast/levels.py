"""Levels: what is known of an original before it is quantized, and what a level of it will weigh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.forecast.gguf_types import BLOCKS, FILE_TYPES


@dataclass(frozen=True, slots=True)
class Original:
    """What declarations, locks and the ledger say of a model; empty and None where they do not."""

    format: str = ""
    precision: str = ""
    quantized: str = ""
    """How its weights are quantized already; empty for unquantized ones, or where it is not known."""
    architecture: str = ""
    params: int | None = None
    bytes: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def original(declaration: Any, lock: Mapping[str, Any] | None, recorded: Mapping[str, Any] | None) -> Original:
    """What is known of a model: recorded facts over the lock's over the declaration's. Pure."""
    known: dict[str, Any] = {}
    for source in (lock, recorded):
        found = (source or {}).get("model")
        if isinstance(found, Mapping):
            known |= found
    named = [str(getattr(declaration, n, None) or "") for n in ("path", "url")]
    named += [str(n) for n in getattr(declaration, "include", ())]
    kind = str(known.get("format") or getattr(declaration, "format", "") or "")
    if (not kind and any(n.lower().endswith(".gguf") for n in named)) or bool(getattr(declaration, "ollama", "")):
        kind = "gguf"
    config = known.get("config") or {}
    quantized = kind if kind in ("gptq", "awq", "mlx") else ""
    if known.get("mlx") and isinstance(known.get("quantization"), Mapping):
        quantized = "mlx"
    if isinstance(config.get("quantization_config"), Mapping):
        quantized = str(config["quantization_config"].get("quant_method", "quantized"))
    return Original(
        kind,
        str(known.get("precision", "")),
        quantized,
        str(known.get("architecture") or "") if kind != "gguf" else "",
        known.get("params"),
        known.get("tensor_bytes") or known.get("bytes"),
        config,
    )


def narrow(model: Original, kind: str) -> int | None:
    """The first row length that does not fill the type's blocks of 256; None where none is known to. Pure."""
    default = FILE_TYPES[kind].default
    if BLOCKS[default][0] != 256:
        return None
    rows = (
        model.config.get(k) for k in ("hidden_size", "intermediate_size", "embedding_length", "feed_forward_length")
    )
    return next((r for r in rows if isinstance(r, int) and r % 256), None)


def memory(model: Original, format: str) -> float | None:
    """About the peak bytes of memory while quantizing: rows for GGUF; lazily, some layers for MLX. Pure."""
    if format == "gguf":
        return 350e6
    return None if model.bytes is None else 300e6 + model.bytes * 0.15
