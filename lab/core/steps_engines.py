"""Steps of the model engines: convert, measure importance, quantize. `Train` stands beside them in `steps_models`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lab.core.facts import Facts
from lab.core.step import Step


@dataclass(frozen=True, slots=True)
class Convert(Step):
    """A GGUF of unquantized weights, made from safetensors, lies in the store's `incoming/` for the steps that follow.

    It is kept under a name made of what goes into it, so that all levels of a ladder share one conversion; `lab gc`
    frees it. Outcome: `{converted: {path, sha256, bytes, type, key}}`.
    """

    verb: ClassVar[str] = "convert"
    uses: ClassVar[tuple[str, ...]] = ("cpu",)

    source: str
    """The view of the original: a folder with config.json, tokenizer.json and safetensors files."""
    type: str = "AUTO"
    """`F32`, `F16`, `BF16`, or `AUTO`: each tensor in the precision it has, so that nothing is lost."""
    name: str = ""
    """`general.name` in the header."""
    store: str = ""


@dataclass(frozen=True, slots=True)
class Importance(Step):
    """An importance matrix of the original over a text: mean squared activation of every input column.

    Outcome: `{imatrix: {path, sha256, tensors, tokens}}`.
    """

    verb: ClassVar[str] = "importance"
    uses: ClassVar[tuple[str, ...]] = ("cpu", "memory")

    source: str
    text: str = ""
    """A text file; empty for the one the model's own folder brings."""
    tokens: int = 4096
    chunk: int = 256
    store: str = ""


@dataclass(frozen=True, slots=True)
class Quantize(Step):
    """A GGUF of the declared type is in the store, and `out` is its view.

    It is made from the outcome of `Convert`, or from `source` where that is a GGUF of unquantized weights.
    """

    verb: ClassVar[str] = "quantize"
    uses: ClassVar[tuple[str, ...]] = ("cpu",)

    type: str
    out: str
    """The view's folder, absolute."""
    file: str
    """The name of the GGUF in the view."""
    digest: str
    facts: Facts
    """What the declaration asks for; kept in the view's provenance and observed from there."""
    source: str = ""
    """A GGUF, where nothing was to be converted."""
    imatrix: str = ""
    """An importance matrix in the file system; empty for the outcome of `Importance`, if any."""
    tensors: Facts = field(default_factory=dict)
    """Pattern of a tensor's name → type, over llama.cpp's own choice."""
    output: str = ""
    """The type of `output.weight`; empty for llama.cpp's choice."""
    embedding: str = ""
    """The type of `token_embd.weight`; empty for llama.cpp's choice."""
    pure: bool = False
    """Whether every tensor gets the type's own, without llama.cpp's mix."""
    provenance: Facts = field(default_factory=dict)
    store: str = ""


@dataclass(frozen=True, slots=True)
class QuantizeMLX(Step):
    """An MLX folder of the declared bits is in the store, and `out` is its view."""

    verb: ClassVar[str] = "quantize_mlx"
    uses: ClassVar[tuple[str, ...]] = ("cpu", "memory")

    source: str
    out: str
    digest: str
    facts: Facts
    bits: int = 4
    group_size: int = 64
    scaling: str = "affine"
    """How a group is scaled: `affine`, `mxfp4`, `mxfp8` or `nvfp4`."""
    recipe: str = ""
    """One of mlx-lm's mixed recipes: `mixed_2_6`, `mixed_3_4`, `mixed_3_6`, `mixed_4_6`."""
    method: str = "round"
    """`round` to nearest, or a learned one: `gptq`, `awq`, `dwq`."""
    text: str = ""
    """Calibration text of a learned method; empty for the one the model's own folder brings."""
    samples: int = 32
    sequence: int = 128
    seed: int = 0
    provenance: Facts = field(default_factory=dict)
    store: str = ""
