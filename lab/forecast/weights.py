"""Bytes of weights in a format: GGUF by its mix, MLX by its groups, or as published."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.forecast import Estimate
from lab.forecast import gguf_mix, gguf_types, inventory
from lab.forecast.architecture import NONE, SSM, WINDOW, Architecture
from lab.forecast.families import traits
from lab.forecast.gguf_mix import Group, Tensor
from lab.forecast.gguf_types import canonical

__all__ = [
    "EXPERTS_MXFP4", "MODES", "RECIPES", "canonical", "gguf", "mix_traits", "mlx", "mlx_bytes", "mlx_runs",
    "mlx_unquantized", "own", "published",
]  # fmt: skip

EXPERTS_MXFP4 = "experts-mxfp4"
"""What mlx-community names `MXFP4-Q8`: experts in mxfp4, all else in `bits` affine."""
MODES = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8), EXPERTS_MXFP4: (64, 8)}
"""MLX's modes of quantization → default group size and bits."""
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
"""mlx-lm's mixed recipes → low and high bits."""
_KEPT_F32 = {"unsloth": ("inp_gate.weight", "proj.weight")}
"""Tensors that a publisher leaves in F32."""
_IMATRIX_DEPENDENT = frozenset({"IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0"})


def mix_traits(arch: Architecture) -> gguf_mix.Traits:
    """What llama.cpp's rules ask of this model. Pure."""
    mixers = arch.mixers()
    first = mixers[0] if mixers else ""
    kv = arch.heads_kv or 0
    if first == WINDOW and arch.window_heads_kv:
        kv = arch.window_heads_kv
    elif first in (SSM, NONE):
        kv = 0
    if arch.mla and arch.mla_split:
        kv = 1
    in_file = any(f"blk.{(arch.layers or 0)}." in t.name for t in arch.tensors)
    layers = (arch.layers or 0) + (arch.mtp if in_file else 0)
    return gguf_mix.Traits(arch.family, layers, arch.heads or 0, kv, arch.experts)


def gguf(
    arch: Architecture, type: str, *, imatrix: bool = False, mtp: bool = False, publisher: str | None = None
) -> Estimate | None:
    """Tensor bytes of a GGUF of `type`; None where the tensors cannot be counted (`inventory.missing`).

    Exact by llama.cpp's rules; types whose mix depends on an importance matrix carry an interval. A file of another
    `publisher` follows the rules of its day, and that publisher's habits, where they are known. Pure.
    """
    name = canonical(type)
    if name is None or (not arch.tensors and inventory.missing(arch)):
        return None
    groups, about = inventory.groups(arch, mtp=mtp), mix_traits(arch)
    if publisher in _KEPT_F32:
        kept = _KEPT_F32[publisher]
        groups = [
            Group(tuple(Tensor(f"{t.name} kept", t.shape, "F32") if t.name in kept else t for t in g.parts), g.layers)
            for g in groups
        ]
    apart = publisher is not None
    try:
        size = gguf_mix.quantized_bytes(groups, name, about, imatrix=imatrix, fused_apart=apart)
        other = gguf_mix.quantized_bytes(groups, name, about, imatrix=imatrix) if apart else size
        if name in _IMATRIX_DEPENDENT:
            other = gguf_mix.quantized_bytes(groups, name, about, imatrix=not imatrix, fused_apart=apart)
    except ValueError:  # llama.cpp refuses this type for these rows
        return None
    source = "header and rule" if arch.tensors else "rule"
    return Estimate(size, min(size, other), max(size, other), source)


def own(arch: Architecture) -> Estimate | None:
    """Tensor bytes of the file whose header this is; None where there is no header. Pure."""
    if not arch.tensors:
        return None
    total = sum(gguf_types.tensor_bytes(t.type, t.shape) for t in arch.tensors if t.type in gguf_types.BLOCKS)
    return Estimate.exact(total, "header")


def parameters(arch: Architecture, *, mtp: bool = True) -> int | None:
    """How many numbers the weights are; None where they cannot be counted. Pure."""
    if arch.parameters and not arch.tensors:
        return arch.parameters
    if inventory.missing(arch):
        return None
    return sum(t.weights * g.times for g in inventory.groups(arch, mtp=mtp) for t in g.parts)


def published(arch: Architecture, *, dtype: str = "", mtp: bool = True) -> Estimate | None:
    """Bytes of the model as published, in `dtype` or its own precision; None where it cannot be counted. Pure."""
    count = parameters(arch, mtp=mtp)
    if count is None:
        return None
    kind = dtype or arch.dtype
    size = {"F32": 4.0, "FP8": 1.0, "MXFP4": 4.25 / 8}.get(kind, 2.0)
    if kind in ("FP8", "MXFP4"):
        return Estimate(count * size * 1.01, count * size, count * size * 1.25, "rule")
    return Estimate.within(count * size, 0.002, "rule")


def mlx(
    arch: Architecture,
    bits: int | None = None,
    group_size: int | None = None,
    *,
    mode: str = "affine",
    recipe: str = "",
) -> Estimate | None:
    """Bytes of an MLX quantization by mlx-lm's own rules; None where the tensors cannot be counted. Pure.

    A Linear or embedding of rows that fill groups takes `bits` and, per group, a scale and a bias of 16 bits (affine)
    or a scale of 8 bits (mxfp4, mxfp8, nvfp4). Routers, norms and convolutions follow their family.
    """
    if inventory.missing(arch):
        return None
    group, asked = MODES[mode]
    group = group_size or group
    total = 0.0
    for tensor, chosen, times in mlx_runs(arch, bits or asked, recipe):
        total += mlx_bytes(arch, tensor, chosen, group, mode) * times
    return _with_tower(arch, total)


def mlx_unquantized(arch: Architecture) -> Estimate | None:
    """Bytes of an MLX copy in 16 bits. Pure."""
    if inventory.missing(arch):
        return None
    total = sum(t.weights * (4 if _is_f32(t.name) else 2) * n for t, _, n in mlx_runs(arch, 16))
    return _with_tower(arch, total)


def _with_tower(arch: Architecture, total: float) -> Estimate:
    """With the bytes of the image or audio tower, which mlx leaves in 16 bits; as a bound where it is not known."""
    if not arch.vision:
        return Estimate.within(total, 0.001, "rule")
    if arch.tower is None:
        return Estimate(total, total, total * 1.3, "rule; the tower is not counted")
    return Estimate.within(total + arch.tower, 0.005, "rule and published tower")


def mlx_runs(arch: Architecture, bits: int, recipe: str = "") -> Iterator[tuple[Tensor, int, int]]:
    """Each tensor as MLX holds it, its bits and how often: layers that share keys and values have none of their own."""
    low, high = RECIPES.get(recipe, (bits, bits))
    layers = arch.layers or 0
    for g in inventory.groups(arch.with_(tensors=())):
        shared = g.layers and arch.kv_shared_layers and g.layers[0] >= layers - arch.kv_shared_layers
        for t in g.parts:
            if t.name == "rope_freqs.weight":
                continue
            if shared and t.name.startswith(("attn_k", "attn_v.")):
                continue
            if low == high or not g.layers:
                yield t, high if t.name == "output.weight" else low, g.times
                continue
            more = sum(_more(t.name, i, layers) for i in g.layers)
            yield t, high, more
            yield t, low, g.times - more


def mlx_bytes(arch: Architecture, t: Tensor, bits: int, group: int, mode: str) -> float:
    if mode == EXPERTS_MXFP4 and "_exps.weight" in t.name:
        return t.weights / 8 * 4.25
    per = 4.0 if mode in ("affine", EXPERTS_MXFP4) else 1.0
    role = traits(arch.family)
    if _is_f32(t.name):
        return t.weights * 4.0
    if t.name.endswith("ffn_gate_inp.weight"):
        if not role.router_linear:
            return t.weights * 2.0
        if role.gate_bits:
            return t.weights / 8 * role.gate_bits + t.weights / 64 * 4.0
    elif "ffn_gate_inp_shexp" in t.name:
        return t.weights / 8 * 8 + t.weights / 64 * 4.0
    elif len(t.shape) < 2 or "conv1d" in t.name or ("indexer" in t.name and "k_norm" in t.name) or ".bias" in t.name:
        return t.weights * 2.0
    if t.shape[0] % group:
        return t.weights * 2.0
    return t.weights / 8 * bits + t.weights / group * per


def _is_f32(name: str) -> bool:
    return "exp_probs_b" in name or name.endswith("ssm_a")


def _more(name: str, i: int, layers: int) -> bool:
    """Whether a mixed recipe gives a tensor of layer `i` its high bits."""
    if not name.startswith(("attn_v.", "attn_v_b", "ffn_down")):
        return False
    return i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2
