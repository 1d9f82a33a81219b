"""Use: how a model is to be run, and what that costs on a host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lab.core.forecast import STALE, Estimate, Forecast
from lab.core.host import Host
from lab.forecast import cache, gguf_types, inventory, memory, reads, speed, weights
from lab.forecast.architecture import Architecture

GGUF, MLX = "gguf", "mlx"


@dataclass(frozen=True, slots=True)
class Use:
    """A format with its type or bits, a context, and the engine's settings; defaults are the engines' own."""

    format: str = GGUF
    """`gguf`, `mlx` or `safetensors` (16 bits)."""
    type: str = ""
    """GGUF file type; empty for the file's own tensors."""
    bits: int | None = None
    group_size: int | None = None
    mode: str = "affine"
    recipe: str = ""
    context: int = 4096
    sequences: int = 1
    ubatch: int = 512
    kv_type: str = "f16"
    flash_attention: bool = True
    swa_full: bool = False
    """Whether llama.cpp keeps window layers whole, as its Python library does."""
    engine: str = ""
    """`llama.cpp`, `mlx`, …; empty for the format's own."""
    imatrix: bool = False
    prompt: int | None = None
    """Tokens of the prompt whose rate is asked; None for half of the context, at most 2,048."""
    depth: int | None = None
    """Tokens already in the context when the rate is asked; None for half of a short answer."""

    @property
    def runs_on(self) -> str:
        """The engine."""
        return self.engine or ("mlx" if self.format == MLX else "llama.cpp")

    def with_(self, **changes: Any) -> Use:
        """The same use with other settings."""
        return replace(self, **changes)

    def label(self) -> str:
        """`Q4_K_M` or `mlx 4-bit`, as people name it."""
        if self.format != MLX:
            return self.type or "as it is"
        if self.recipe or self.mode != "affine":
            return f"mlx {self.recipe or self.mode}"
        return f"mlx {self.bits or 16}-bit" + (f" g{self.group_size}" if self.group_size not in (None, 64) else "")


@dataclass(frozen=True, slots=True)
class Needs:
    """A forecast in its parts; None means "not known", and `notes` say why."""

    use: Use
    weights: Estimate | None = None
    cache: Estimate | None = None
    buffer: Estimate | None = None
    peak: Estimate | None = None
    decode: Estimate | None = None
    """Tokens generated per second."""
    prefill: Estimate | None = None
    """Prompt tokens read per second."""
    notes: tuple[str, ...] = ()

    def forecast(self) -> Forecast:
        """As a plan shows it."""
        return Forecast(disk=self.weights, memory=self.peak, tokens_per_second=self.decode, notes=self.notes)

    def to_json(self) -> dict[str, Any]:
        """Known figures by name, each `{value, low, high, source}`, and the notes."""
        out: dict[str, Any] = {"use": self.use.label(), "context": self.use.context, "engine": self.use.runs_on}
        for name in ("weights", "cache", "buffer", "peak", "decode", "prefill"):
            if (e := getattr(self, name)) is not None:
                out[name] = {"value": e.value, "low": e.low, "high": e.high, "source": e.source}
        return {**out, "notes": list(self.notes)}


def weight_bytes(arch: Architecture, use: Use) -> Estimate | None:
    """Bytes of the weights in the declared form. Pure."""
    if use.format == MLX:
        if use.bits is None and use.mode == "affine" and not use.recipe:
            return weights.mlx_unquantized(arch)
        return weights.mlx(arch, use.bits, use.group_size, mode=use.mode, recipe=use.recipe)
    if use.type:
        return weights.gguf(arch, use.type, imatrix=use.imatrix)
    return weights.own(arch) or weights.published(arch)


def read_bytes(arch: Architecture, use: Use) -> reads.Reads | None:
    """What one token reads of the weights in the declared form. Pure."""
    if use.format == MLX and (use.bits or use.mode != "affine" or use.recipe):
        bits = use.bits or weights.MODES[use.mode][1]
        return reads.weights_read(arch, bits=bits, group_size=use.group_size, mode=use.mode, recipe=use.recipe)
    if use.format == MLX or not use.type:
        return reads.weights_read(arch, type="" if arch.tensors else "BF16")
    return reads.weights_read(arch, type=use.type)


def needs(arch: Architecture, use: Use, host: Host | None = None) -> Needs:
    """What running `arch` as declared takes: bytes and, on a host whose bandwidth is known, tokens per second. Pure."""
    engine, notes = use.runs_on, list(arch.unknown)
    size = weight_bytes(arch, use)
    if size is None:
        lacking = ", ".join(inventory.missing(arch)) or f"the mix of {use.label()}"
        notes.append(f"weights: not known ({lacking})")
    kv = cache.kv(
        arch,
        use.context,
        engine=engine,
        kv_type=use.kv_type,
        sequences=use.sequences,
        ubatch=use.ubatch,
        flash_attention=use.flash_attention,
        swa_full=use.swa_full,
    )
    if kv is None:
        notes.append(f"cache: not known ({', '.join(cache.missing(arch)) or use.kv_type})")
    buffer = None
    if engine != "mlx":
        buffer = memory.compute_buffer(
            arch, cache.pad(use.context), ubatch=use.ubatch, flash_attention=use.flash_attention
        )
    held = weight_bytes(arch.with_(vision=False), use) if engine == "mlx" and arch.vision else size  # its text alone
    peak = memory.peak(arch, held, kv, buffer, context=use.context, engine=engine) if held and kv else None
    out = Needs(use, size, kv, buffer, peak)
    if host is not None:
        out = _rates(arch, out, host, notes)
    return replace(out, notes=tuple(dict.fromkeys(notes)))


def measured(host: Host, use: Use) -> speed.Measured | None:
    """What a calibration says of the engine with this type of weights; None where it was not measured. Pure."""
    found = host.engines.get(use.runs_on)
    if found is None:
        return None
    name = str(use.bits) if use.format == MLX and use.bits else "F16"
    if use.type:
        kind = gguf_types.canonical(use.type)
        name = gguf_types.FILE_TYPES[kind].default if kind else ""
    eta, flops = found.eta_by_type.get(name, found.eta), found.flops_by_type.get(name, found.flops)
    return speed.Measured(eta, found.alpha, flops)


def _rates(arch: Architecture, out: Needs, host: Host, notes: list[str]) -> Needs:
    use = out.use
    read = read_bytes(arch, use)
    if read is None:
        notes.append("speed: not known (the weights are not)")
        return out
    found = measured(host, use)
    depth = use.depth if use.depth is not None else min(use.context // 2, 256)
    per_token = speed.decode_seconds(
        arch, read, host, engine=use.runs_on, depth=depth, kv_type=use.kv_type, type=use.type, measured=found
    )
    prompt = use.prompt or min(2048, max(use.context // 2, 1))
    start = use.depth or 0
    per_prompt = speed.prefill_seconds(
        arch, read, host, prompt, engine=use.runs_on, depth=start, type=use.type, measured=found
    )
    if per_token is None:
        notes.append(f"speed: not known (the memory bandwidth of {host.name} is not; `lab calibrate` measures it)")
    stale = found and host.engines[use.runs_on].stale
    source = STALE if stale else "calibration" if found else "fitted constants"
    known = speed.generation(host.chip) > 0 or found
    width = 2 * speed.CALIBRATED if stale else speed.CALIBRATED if found else speed.DECODE if known else 0.4
    decode = speed.rate(per_token, width, source)
    prefill = speed.rate(per_prompt / prompt if per_prompt else None, speed.PREFILL if known else 0.6, source)
    return replace(out, decode=decode, prefill=prefill)
