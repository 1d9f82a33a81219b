"""GGUF's tensor types and file types: block sizes, and what a file type such as Q4_K_M is made of by default.

Sizes are ggml's own (`ggml_blck_size`, `ggml_type_size`); names, default types and the need of an importance matrix
are those of `llama-quant.cpp`. A file type is a mix: which tensor gets which type is decided in `gguf_mix`.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCKS: dict[str, tuple[int, int]] = {
    "F64": (1, 8),
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "I8": (1, 1),
    "I16": (1, 2),
    "I32": (1, 4),
    "I64": (1, 8),
    "Q1_0": (128, 18),
    "Q2_0": (64, 18),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 36),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
}
"""Tensor type → (weights in a block, bytes of a block)."""

IDS: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}  # fmt: skip
"""ggml's number of a tensor type, as stored in a GGUF header → its name."""


@dataclass(frozen=True, slots=True)
class FileType:
    """One type that `llama-quantize` offers: the type most tensors get, and what it takes."""

    name: str
    id: int
    """`general.file_type` in the header."""
    default: str
    imatrix: str = ""
    """`required`, `advised` or empty: whether it is refused, or clearly worse, without an importance matrix."""


def _table(*rows: tuple[str, int, str] | tuple[str, int, str, str]) -> dict[str, FileType]:
    return {r[0]: FileType(*r) for r in rows}


FILE_TYPES: dict[str, FileType] = _table(
    ("F32", 0, "F32"),
    ("F16", 1, "F16"),
    ("BF16", 32, "BF16"),
    ("Q8_0", 7, "Q8_0"),
    ("Q6_K", 18, "Q6_K"),
    ("Q5_K_M", 17, "Q5_K"),
    ("Q5_K_S", 16, "Q5_K"),
    ("Q5_1", 9, "Q5_1"),
    ("Q5_0", 8, "Q5_0"),
    ("IQ4_NL", 25, "IQ4_NL", "advised"),
    ("Q4_K_M", 15, "Q4_K"),
    ("Q4_K_S", 14, "Q4_K"),
    ("Q4_1", 3, "Q4_1"),
    ("Q4_0", 2, "Q4_0"),
    ("IQ4_XS", 30, "IQ4_XS", "advised"),
    ("MXFP4_MOE", 38, "MXFP4"),
    ("Q3_K_L", 13, "Q3_K"),
    ("Q3_K_M", 12, "Q3_K"),
    ("IQ3_M", 27, "IQ3_S", "advised"),
    ("Q3_K_S", 11, "Q3_K"),
    ("IQ3_S", 26, "IQ3_S", "advised"),
    ("IQ3_XS", 22, "IQ3_S", "required"),
    ("IQ3_XXS", 23, "IQ3_XXS", "required"),
    ("Q2_K", 10, "Q2_K"),
    ("Q2_K_S", 21, "Q2_K", "required"),
    ("IQ2_M", 29, "IQ2_S", "required"),
    ("IQ2_S", 28, "IQ2_XS", "required"),
    ("IQ2_XS", 20, "IQ2_XS", "required"),
    ("Q2_0", 41, "Q2_0"),
    ("TQ2_0", 37, "TQ2_0"),
    ("IQ2_XXS", 19, "IQ2_XXS", "required"),
    ("IQ1_M", 31, "IQ1_M", "required"),
    ("TQ1_0", 36, "TQ1_0"),
    ("IQ1_S", 24, "IQ1_S", "required"),
    ("Q1_0", 40, "Q1_0"),
)
"""Every type that can be made, from the most faithful to the smallest."""

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32", "MXFP4": "MXFP4_MOE"}
"""Names people use, as `llama-quantize` understands them."""

ALLOWED: tuple[str, ...] = tuple(FILE_TYPES)
"""The names a declaration may use."""

UNQUANTIZED = frozenset({"F32", "F16", "BF16"})
"""Types that GGUF is quantized from, and never back to."""

LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_M", "Q2_K", "IQ2_M", "IQ1_M")
"""The rungs worth considering when something must fit, best first."""


def canonical(name: str) -> str | None:
    """The file type people mean by `name`; None where there is none. Pure."""
    upper = name.upper().removeprefix("MOSTLY_")
    upper = ALIASES.get(upper, upper)
    return upper if upper in FILE_TYPES else None


def bits(tensor_type: str) -> float:
    """Bits per weight of a tensor type. Pure."""
    weights, size = BLOCKS[tensor_type]
    return size * 8 / weights


def row_bytes(tensor_type: str, columns: int) -> int:
    """Bytes of one row (`ggml_row_size`); ValueError where the columns do not fill whole blocks. Pure."""
    weights, size = BLOCKS[tensor_type]
    if columns % weights:
        raise ValueError(f"{columns} columns do not fill blocks of {weights} ({tensor_type})")
    return columns // weights * size


def tensor_bytes(tensor_type: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor; `shape` in ggml's order, the row length first. Pure."""
    rows = 1
    for n in shape[1:]:
        rows *= n
    return row_bytes(tensor_type, shape[0]) * rows
