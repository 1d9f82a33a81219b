"""Bytes of weights in a format: GGUF by its mix, MLX by its groups, or as published."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.core.forecast import Estimate
from lab.forecast import gguf_mix, gguf_types, inventory
from lab.forecast.architecture import NONE, SSM, WINDOW, Architecture
from lab.forecast.families import traits
from lab.forecast.gguf_mix import Tensor

MODES = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
"""MLX's modes of quantization → default group size and bits."""
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
"""mlx-lm's mixed recipes → low and high bits."""
_IMATRIX_DEPENDENT = frozenset({"IQ3_XXS", "IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0"})
_BLOCK = re.compile(r"blk\.(\d+)\.")


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


def gguf(arch: Architecture, type: str, *, imatrix: bool = False, mtp: bool = False) -> Estimate | None:
    """Tensor bytes of a GGUF of `type`; None where the tensors cannot be counted (`inventory.missing`). Pure.

    Exact by llama.cpp's rules; types whose mix depends on an importance matrix carry an interval unless it is said.
    """
    name = gguf_types.canonical(type)
    if name is None or (not arch.tensors and inventory.missing(arch)):
        return None
    tensors, about = inventory.tensors(arch, mtp=mtp), mix_traits(arch)
    size = gguf_mix.quantized_bytes(tensors, name, about, imatrix=imatrix)
    other = size
    if name in _IMATRIX_DEPENDENT:
        other = gguf_mix.quantized_bytes(tensors, name, about, imatrix=not imatrix)
    source = "header and rule" if arch.tensors else "rule"
    return Estimate(size, min(size, other), max(size, other), source)


def own(arch: Architecture) -> Estimate | None:
    """Tensor bytes of the file whose header this is; None where there is no header. Pure."""
    if not arch.tensors:
        return None
    total = sum(gguf_types.tensor_bytes(t.type, t.shape) for t in arch.tensors if t.type in gguf_types.BLOCKS)
    return Estimate.exact(total, "header")


def published(arch: Architecture, *, dtype: str = "", mtp: bool = True) -> Estimate | None:
    """Bytes of the model as published, in `dtype` or its own precision; None where it cannot be counted. Pure."""
    if arch.parameters and not arch.tensors:
        count = arch.parameters
    elif inventory.missing(arch):
        return None
    else:
        count = sum(t.weights for t in inventory.tensors(arch, mtp=mtp))
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
    group, asked = group_size or group, bits or asked
    plain = arch.with_(tensors=())
    total = 0.0
    for tensor in _mlx_tensors(plain):
        low, high = RECIPES.get(recipe, (asked, asked))
        chosen = high if recipe and _more(tensor.name, arch.layers or 0) else low
        total += _mlx_bytes(plain, tensor, chosen, group, mode)
    source = "rule"
    if arch.vision:
        return Estimate(total, total, total * 1.2, f"{source}; the tower is not counted")
    return Estimate.within(total, 0.001, source)


def mlx_unquantized(arch: Architecture) -> Estimate | None:
    """Bytes of an MLX copy in 16 bits. Pure."""
    if inventory.missing(arch):
        return None
    plain = arch.with_(tensors=())
    total = sum(t.weights * (4 if _is_f32(t.name) else 2) for t in _mlx_tensors(plain))
    return Estimate.within(total, 0.001, "rule")


def _mlx_tensors(arch: Architecture) -> Iterator[Tensor]:
    """The tensors as MLX holds them: fused matrices count the same, split ones are summed row by row."""
    return iter(inventory.tensors(arch, mtp=False))


def _mlx_bytes(arch: Architecture, t: Tensor, bits: int, group: int, mode: str) -> float:
    per = 4.0 if mode == "affine" else 1.0
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


def _more(name: str, layers: int) -> bool:
    """Whether a mixed recipe gives a tensor its high bits."""
    if name == "output.weight":
        return True
    if "attn_v.weight" not in name and "attn_v_b" not in name and "ffn_down" not in name:
        return False
    found = _BLOCK.match(name)
    i = int(found[1]) if found else 0
    return i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2


def active(arch: Architecture) -> tuple[float, float] | None:
    """Weights read per generated token: (those outside experts and embeddings, those of the experts used).

    The input embedding is a lookup and costs nothing; a tied one is read once as the output. None where the tensors
    cannot be counted. Pure.
    """
    if not arch.tensors and inventory.missing(arch):
        return None
    dense, experts, output = 0.0, 0.0, 0.0
    for t in inventory.tensors(arch):
        if t.name == "token_embd.weight":
            output = output or t.weights
        elif t.name == "per_layer_token_embd.weight":
            continue
        elif t.name == "output.weight":
            output = t.weights
        elif "_exps" in t.name:
            experts += t.weights
        elif not (found := _BLOCK.match(t.name)) or int(found[1]) < (arch.layers or 1 << 30):
            dense += t.weights
    used = experts * arch.experts_used / arch.experts if arch.experts else experts
    return dense + output, used
