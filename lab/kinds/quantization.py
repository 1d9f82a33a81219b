"""quantization: a model's weights in fewer bits, as a GGUF or as an MLX folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lab.core import layout, views
from lab.core.address import Address
from lab.core.block import Block
from lab.core.budget import Budget
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.forecast import Estimate, Forecast
from lab.core.kind import Context, Declaration, RefTo
from lab.core.problem import did_you_mean
from lab.core.stages import folder
from lab.core.step import Step
from lab.core.steps_engines import Convert, Importance, Quantize, QuantizeMLX
from lab.core.steps_models import DropView
from lab.core.world import World
from lab.forecast import gguf_types, levels

if TYPE_CHECKING:
    from lab.forecast import Architecture, Use

CONVERTIBLE = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures Lab's own converter turns into GGUF (`model_type` of config.json)."""
LEARNED = ("gptq", "awq", "dwq")
RECIPES = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
OTHER_FORMATS = {
    "gptq": "write `format: mlx` and `method: gptq`: mlx-lm learns GPTQ, and its output is MLX",
    "awq": "write `format: mlx` and `method: awq`: mlx-lm learns AWQ, and its output is MLX",
    "bitsandbytes": "use `format: gguf` or `format: mlx`; bitsandbytes quantizes while loading and leaves no files",
    "exl2": "use `format: gguf` or `format: mlx`; no tool here writes exl2",
}
_GGUF_ONLY = ("type", "types", "imatrix", "tensors", "output", "embedding", "pure")
_MLX_ONLY = ("bits", "group_size", "mode", "recipe", "method", "text", "samples", "sequence", "seed")


class Imatrix(Block):
    """Where the importance matrix comes from."""

    text: str = ""
    """A text file of the lab to measure on; empty for the `calibration.txt` of the model's recipe."""
    file: str = ""
    """A finished matrix (`.gguf`, or llama.cpp's older `.dat`) instead of a text."""
    tokens: int = Field(default=4096, ge=64)
    """How many tokens of the text to measure on."""
    chunk: int = Field(default=256, ge=16)
    """Tokens per forward pass."""


class Quantization(Declaration):
    """A model's weights in fewer bits: a GGUF of any type llama.cpp offers, or an MLX folder of 2 to 8 bits.

        quantization/tiny_lm_q4.yaml:   of: tiny_lm   format: gguf   type: Q4_K_M
        quantization/tiny_lm.yaml:      of: tiny_lm   format: gguf   types: [F16, Q8_0, Q4_K_M]
        quantization/tiny_lm_mlx.yaml:  of: tiny_lm   format: mlx    bits: [8, 4]   group_size: 64

    `types:` and lists of `bits:` are a ladder: each level is a resource of its own, `quantization.tiny_lm.Q4_K_M`,
    `quantization.tiny_lm_mlx.4bit`. Destroying one removes its view; its bytes stay in the store until `lab gc`.
    """

    kind: ClassVar[str] = "quantization"
    derived: ClassVar[bool] = True
    fixed: ClassVar[frozenset[str]] = frozenset({
        "of", "format", "type", "imatrix", "tensors_declared", "output", "embedding", "pure",
        "bits", "group_size", "mode", "recipe", "method", "seed",
    })  # fmt: skip
    pinned: ClassVar[frozenset[str]] = frozenset({
        "type", "imatrix", "tensors", "output", "embedding", "pure", "bits", "group_size", "mode", "recipe", "method",
    })  # fmt: skip
    aside: ClassVar[frozenset[str]] = Declaration.aside | {"store", "context", "allow_overcommit", "budget"}

    of: Annotated[Address, RefTo("model")]
    """The model whose weights are quantized; they must not be quantized already."""
    format: Literal["gguf", "mlx"]
    """`gguf` for llama.cpp, Ollama and LM Studio; `mlx` for MLX."""
    type: str = ""
    """For `gguf`: any type llama.cpp offers, `Q4_K_M`, `IQ3_M`, `Q8_0`, … or F16, BF16, F32 to only convert."""
    types: tuple[str, ...] = ()
    """For `gguf`: a ladder of types."""
    imatrix: bool | Imatrix = False
    """For `gguf`: weigh errors by an importance matrix, measured on a text; some types cannot do without."""
    tensors: Mapping[str, str] = {}
    """For `gguf`: tensor types by regular expression of the name, `{"ffn_down": q6_k}`, over llama.cpp's own choice."""
    output: str = ""
    """For `gguf`: the type of the output tensor; empty for llama.cpp's choice."""
    embedding: str = ""
    """For `gguf`: the type of the token embedding; empty for llama.cpp's choice."""
    pure: bool = False
    """For `gguf`: every tensor gets the type itself, without llama.cpp's mix."""
    bits: int | tuple[int, ...] = ()
    """For `mlx`: bits per weight, 2, 3, 4, 5, 6 or 8; a list is a ladder."""
    group_size: int | None = None
    """For `mlx`: weights that share a scale, 32, 64 or 128; fewer is more faithful and larger."""
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] = "affine"
    """For `mlx`: how a group is scaled."""
    recipe: str = ""
    """For `mlx`: one of mlx-lm's mixes, `mixed_2_6`, `mixed_3_4`, `mixed_3_6`, `mixed_4_6`, instead of `bits`."""
    method: Literal["round", "gptq", "awq", "dwq"] = "round"
    """For `mlx`: round to nearest, or learn on a text."""
    text: str = ""
    """For a learned `method`: a text file of the lab; empty for the `calibration.txt` of the model's recipe."""
    samples: int = Field(32, ge=1)
    """For a learned `method`: how many pieces of the text."""
    sequence: int = Field(128, ge=16)
    """For a learned `method`: tokens per piece."""
    seed: int = 0
    """For a learned `method`: which pieces."""
    context: int | None = Field(None, gt=0)
    """Tokens of context it is to be used with; empty takes its model's."""
    budget: Budget = Budget()
    """`{load_s: 5, ttft_ms: 200, decode_tps: 20}`: what `lab bench` checks; it fails where one is not kept."""
    allow_overcommit: bool = False
    """Plan it even where it does not fit the host's memory at its context."""
    store: str = ""
    """The store it lives in, by name or tier, of `lab.stores`; empty puts it where its model is."""

    @classmethod
    def expand(cls, name: str, block: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
        """One resource per entry of `types`, or of a list of `bits`. Pure."""
        for field, single in (("types", "type"), ("bits", "bits")):
            found = block.get(field)
            if not isinstance(found, (list, tuple)) or not found:
                continue
            rest = {k: v for k, v in block.items() if k != field}
            if field == "types":
                levels = {f"{name}.{gguf_types.canonical(str(v)) or v}": {**rest, single: v} for v in found}
            else:
                levels = {f"{name}.{v}bit": {**rest, single: v} for v in found}
            return levels if len(levels) == len(found) else None
        return None

    @field_validator("format", mode="before")
    @classmethod
    def _known_format(cls, value: Any) -> Any:
        if isinstance(value, str) and value in OTHER_FORMATS:
            raise ValueError(f"no installed tool writes {value} files; {OTHER_FORMATS[value]}")
        return value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        if not value:
            return value
        found = gguf_types.canonical(value)
        if found is None:
            near = did_you_mean(value.upper(), gguf_types.ALLOWED)
            raise ValueError(f"llama.cpp has no type {value}{near}; it has {', '.join(gguf_types.ALLOWED)}")
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Quantization:
        if self.types or (isinstance(self.bits, tuple) and self.bits):
            raise ValueError("a ladder lists each level once")
        others = _MLX_ONLY if self.format == "gguf" else _GGUF_ONLY
        strange = [n for n in others if n in self.model_fields_set and n not in ("types",)]
        if strange:
            raise ValueError(f"`{strange[0]}` does not belong to `format: {self.format}`")
        if self.format == "gguf":
            if not self.type:
                raise ValueError("give `type: Q4_K_M`, or a ladder `types: [Q8_0, Q4_K_M]`")
            if gguf_types.FILE_TYPES[self.type].imatrix == "required" and not self.imatrix:
                raise ValueError(f"{self.type} cannot be made without an importance matrix: set `imatrix: true`")
        else:
            self._mlx()
        return self

    def _mlx(self) -> None:
        allowed = {"affine": (2, 3, 4, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)}[self.mode]
        groups = {"affine": (32, 64, 128), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}[self.mode]
        if self.recipe:
            if self.recipe not in RECIPES:
                raise ValueError(f"no recipe {self.recipe}{did_you_mean(self.recipe, RECIPES)}; {', '.join(RECIPES)}")
            if self.bits or self.mode != "affine" or self.method != "round":
                raise ValueError("`recipe` decides the bits itself: leave `bits`, `mode` and `method` out")
        elif not self.bits and self.mode == "affine":
            raise ValueError("give `bits: 4`, a ladder `bits: [8, 4]`, or a `recipe`")
        elif self.bits and self.bits not in allowed:
            raise ValueError(f"MLX has no {self.bits} bits in mode {self.mode}: {', '.join(map(str, allowed))}")
        if self.group_size and self.group_size not in groups:
            raise ValueError(
                f"MLX has no groups of {self.group_size} in mode {self.mode}: {', '.join(map(str, groups))}"
            )
        if self.method == "gptq" and self.bits not in (2, 4, 8):
            raise ValueError("mlx-lm learns GPTQ for 2, 4 or 8 bits")
        if self.method != "round" and self.mode != "affine":
            raise ValueError(f"{self.method} learns affine groups only")

    # What it is

    @property
    def width(self) -> int:
        """Bits per weight of an MLX quantization; of a recipe its lower ones. Pure."""
        if self.recipe:
            return int(self.recipe.split("_")[1])
        return int(self.bits) if isinstance(self.bits, int) else {"mxfp8": 8}.get(self.mode, 4)

    @property
    def group(self) -> int:
        """Weights that share a scale. Pure."""
        return self.group_size or {"affine": 64, "nvfp4": 16}.get(self.mode, 32)

    def root(self, context: Context) -> str:
        """The root of the store it lives in. Pure."""
        model = context.declaration(self.of)
        store = self.store or getattr(model, "store", "")
        return context.path(layout.root(context.lab, context.store, self.of.name, store))

    def view(self, context: Context) -> str:
        """The folder of links that people and tools read. Pure."""
        family = getattr(context.declaration(self.of), "family", "")
        return layout.view(self.root(context), self.of.name, family, context.address.name, stage=folder(context.lab))

    def original(self, context: Context) -> str:
        """The folder of the model's own files. Pure."""
        return str(context.declaration(self.of).view(context.of(self.of)))

    def declared(self) -> dict[str, Any]:
        """What is asked for, as its provenance records it. Pure."""
        facts: dict[str, Any] = {"of": str(self.of), "format": self.format}
        if self.format == "mlx":
            facts |= {"bits": self.width, "group_size": self.group, "mode": self.mode}
            chosen = {"recipe": self.recipe, "method": "" if self.method == "round" else self.method}
            return facts | {k: v for k, v in chosen.items() if v}
        matrix = self.imatrix.model_dump(exclude_defaults=True) if isinstance(self.imatrix, Imatrix) else self.imatrix
        special: dict[str, Any] = {
            "imatrix": matrix or self.imatrix is not False,
            "output": self.output,
            "embedding": self.embedding,
            "pure": self.pure,
            "tensors_declared": dict(self.tensors),
        }
        return facts | {"type": self.type} | {k: v for k, v in special.items() if v}

    # What a kind answers

    def contents(self, context: Context) -> Facts:
        matrix = self.imatrix if isinstance(self.imatrix, Imatrix) else Imatrix()
        paths = {"text": self.text, "imatrix_text": matrix.text, "imatrix_file": matrix.file}
        return {k: context.content(context.path(p)) for k, p in paths.items() if p}

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        if self.store and layout.choose(context.lab, context.store, self.of.name, self.store) is None:
            known = ", ".join(layout.stores(context.lab, context.store))
            yield f"no store or tier is called {self.store}", "store", f"declare it under `lab.stores`, or use {known}"
        if context.address.name == layout.ORIGINAL:
            yield f"a quantization may not be called {layout.ORIGINAL}", "", "the store uses that name; take another"
        matrix = self.imatrix if isinstance(self.imatrix, Imatrix) else Imatrix()
        for field, path in (("text", self.text), ("imatrix", matrix.text), ("imatrix", matrix.file)):
            if path and not context.content(context.path(path)):
                yield f"{path} is not there", field, "make it, or name another file"
        model = levels.original(context.declaration(self.of), context.of(self.of).lock, context.recorded(self.of))
        yield from self._of(model, self.of)
        if use := self.use(context):
            from lab.forecast import resources

            yield from resources.problems(self.shape(context), use, context.host, "of", self.allow_overcommit)

    def shape(self, context: Context) -> Architecture | None:
        """What is known of its model's architecture; None where nothing is. Pure."""
        from lab.forecast import resources

        hub = str(getattr(context.declaration(self.of), "hub", ""))
        return resources.architecture(hub, context.of(self.of).lock, context.recorded(self.of))

    def form(self) -> Use:
        """Its form, as a forecast names it. Pure."""
        from lab.forecast import Use

        if self.format == "gguf":
            return Use(type=self.type, imatrix=self.imatrix is not False)
        return Use(format="mlx", bits=self.width, group_size=self.group, mode=self.mode, recipe=self.recipe)

    def use(self, context: Context) -> Use | None:
        """How it is to be run; None where no context is declared. Pure."""
        tokens = self.context or getattr(context.declaration(self.of), "context", None)
        return self.form().with_(context=tokens) if tokens else None

    def _of(self, model: levels.Original, of: Address) -> Iterator[tuple[str, str, str]]:
        """What is wrong with quantizing this original this way."""
        if model.format == "gguf":
            if self.format == "mlx":
                do = "use `format: gguf`, or declare the safetensors original as the model"
                yield f"MLX quantizes safetensors; {of} is a GGUF. Allowed here: format gguf", "format", do
            elif model.precision and model.precision not in gguf_types.UNQUANTIZED:
                do = "declare a GGUF in F16, BF16 or F32, or the safetensors original, as the model"
                yield (
                    f"{of} is quantized already ({model.precision}); a GGUF is made from unquantized weights",
                    "of",
                    do,
                )
            elif self.imatrix is True or (isinstance(self.imatrix, Imatrix) and not self.imatrix.file):
                do = "declare the safetensors original as the model, or give `imatrix: {file: …}`"
                yield f"an importance matrix is measured on safetensors; {of} is a GGUF", "imatrix", do
        elif model.quantized:
            do = "declare the original, unquantized weights as the model"
            yield f"{of} is quantized already ({model.quantized}); quantize the original", "of", do
        elif self.format == "gguf" and model.architecture and model.architecture not in CONVERTIBLE:
            do = "convert it with llama.cpp's converter (docs/quantization.md) and declare that GGUF as a model"
            known = ", ".join(CONVERTIBLE)
            yield f"Lab converts {known} to GGUF, not {model.architecture}; use format mlx, or convert it", "of", do

    def wanted(self, context: Context) -> Facts:
        return {**self.declared(), "view": self.view(context)}

    def observe(self, world: World, context: Context) -> Facts | None:
        known = bool(context.recorded(context.address))
        found = views.observe(world, self.root(context), self.view(context), known=known)
        if found is None:
            return None
        seen = {k: found[k] for k in ("view", "files", "digest") if k in found}
        return {**(found.get("facts") or {}), **seen}

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        view, old = self.view(context), (change.recorded or {}).get("view")
        if change.action is Action.DESTROY:
            yield DropView(str(old or view))
            return
        root, source, facts = self.root(context), self.original(context), self.declared()
        provenance = {"address": str(context.address), "lab": str(context.lab.get("id", ""))}
        if self.format == "mlx":
            text = context.path(self.text) if self.text else ""
            yield QuantizeMLX(
                source, view, change.digest, facts, self.width, self.group, self.mode, self.recipe, self.method, text,
                self.samples, self.sequence, self.seed, provenance, root,
            )  # fmt: skip
        else:
            kept = self.type in gguf_types.UNQUANTIZED
            yield Convert(source, self.type if kept else "AUTO", self.of.name, root)
            matrix = self.imatrix if isinstance(self.imatrix, Imatrix) else Imatrix()
            if self.imatrix and not matrix.file:
                text = context.path(matrix.text) if matrix.text else ""
                yield Importance(source, text, matrix.tokens, matrix.chunk, root)
            file = f"{self.of.name}-{self.type}.gguf"
            yield Quantize(
                self.type, view, file, change.digest, facts, "", context.path(matrix.file) if matrix.file else "",
                dict(self.tensors), self.output, self.embedding, self.pure, provenance, root,
            )  # fmt: skip
        if old and old != view:
            yield DropView(str(old))

    def forecast(self, change: Change, context: Context) -> Forecast:
        if change.action in (Action.DESTROY, Action.NONE, Action.ADOPT):
            return Forecast()
        from lab.forecast import resources, work

        model = levels.original(context.declaration(self.of), context.of(self.of).lock, context.recorded(self.of))
        notes: tuple[str, ...] = ()
        if self.format == "gguf" and (narrow := levels.narrow(model, self.type)):
            notes = (f"rows of {narrow} weights do not fill blocks of 256: llama.cpp will use larger types there",)
        disk = None if self.tensors or self.pure or self.output else resources.disk(self.shape(context), self.form())
        if disk is None:
            return Forecast(notes=(*notes, "its size is known once its model is there"))
        between = (model.bytes or 0) if self.format == "gguf" else 0
        memory = levels.memory(model, self.format)
        making = Estimate.within(memory, 0.5, "rule") if memory else None
        use = self.use(context)
        run = resources.run(self.shape(context), use, context.host) if use else None
        peaks = [m for m in (making, run.peak if run else None) if m]
        return Forecast(
            disk=disk,
            disk_peak=disk + Estimate.within(between, 0.02, "conversion kept beside it") if between else disk,
            memory=max(peaks, key=lambda m: m.value, default=None),
            tokens_per_second=run.decode if run else None,
            seconds=work.quantizing(model.params or 0, self.form(), context.host, model.bytes or 0, disk.value)
            if model.params
            else None,
            volume=self.root(context) if self.root(context) != context.store else "",
            notes=notes,
        )
