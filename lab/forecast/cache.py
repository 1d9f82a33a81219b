"""Bytes of the key-value cache and of recurrent state, as each engine allocates them.

llama.cpp (`llama-kv-cache*.cpp`, `llama-memory-recurrent.cpp`): cells are padded to 256; a window layer holds
pad256(min(ctx, window · sequences + ubatch)) cells; MLA holds one latent vector per token; states are f32.
mlx-lm (`models/cache.py`): full layers grow in steps of 256; a window layer holds up to window + step − 1 cells.
"""

from __future__ import annotations

from lab.core.forecast import Estimate
from lab.forecast.architecture import FULL, LINEAR, SSM, WINDOW, Architecture
from lab.forecast.gguf_types import BLOCKS
from lab.forecast.inventory import heads

SIZES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, **{k.lower(): s / b for k, (b, s) in BLOCKS.items() if b > 1}}
"""Cache type → bytes per number."""
PREFILL_STEP = 2048
"""Tokens mlx-lm evaluates at a time while it reads a prompt."""


def pad(n: int, to: int = 256) -> int:
    """`n` rounded up to a multiple of `to`."""
    return -(-n // to) * to


def missing(arch: Architecture) -> tuple[str, ...]:
    """What must be known before the cache can be counted, and is not. Pure."""
    if not arch.causal:
        return ()
    mixers = set(arch.mixers())
    out = list(arch.missing("layers"))
    if mixers & {FULL, WINDOW} and not arch.mla and arch.attention != "V4":
        out += arch.missing("heads_kv", "head_dim")
    if arch.mla:
        out += arch.missing("rope_dim")
    if WINDOW in mixers:
        out += arch.missing("window")
    if mixers & {LINEAR, SSM} and not arch.ssm:
        out.append("ssm")
    if arch.attention == "DSA" and not arch.index:
        out.append("index")
    if arch.attention == "V4":
        out += [n for n in ("compress", "index") if not getattr(arch, n)]
        out += arch.missing("head_dim", "window")
    if not arch.family and not (arch.attention in ("MHA", "GQA", "MQA") and not arch.window):
        out.append("family")
    return tuple(dict.fromkeys(out))


def kv(
    arch: Architecture,
    context: int,
    *,
    engine: str = "llama.cpp",
    kv_type: str = "f16",
    sequences: int = 1,
    ubatch: int = 512,
    flash_attention: bool = True,
    swa_full: bool = False,
) -> Estimate | None:
    """Bytes the engine allocates for `context` tokens in each of `sequences`; None where it cannot be told.

    `swa_full`: llama.cpp keeps window layers whole, as its library does by default and its programs do not. Pure.
    """
    if not arch.causal:
        return Estimate.exact(0, "an encoder keeps no cache")
    if missing(arch) or kv_type not in SIZES:
        return None
    if engine == "mlx":
        total = _mlx(arch, context, kv_type, sequences)
    elif engine == "ds4":
        total = _v4(arch, context, 4.0, ds4=True) if arch.attention == "V4" else None
    else:
        total = _llama(arch, context, kv_type, sequences, ubatch, flash_attention, swa_full)
    return None if total is None else Estimate.exact(total, "rule")


def _llama(
    a: Architecture, context: int, kv_type: str, sequences: int, ubatch: int, fa: bool, swa_full: bool
) -> float | None:
    s, cells = SIZES[kv_type], pad(context)
    if a.attention == "V4":
        return _v4(a, cells, s, ubatch=ubatch) * sequences
    window = cells if swa_full else pad(min(cells, (a.window or 0) + ubatch))
    total = 0.0
    v_max = max((heads(a, m)[0] * heads(a, m)[2] for m in set(a.mixers()) if m in (FULL, WINDOW)), default=0)
    for i, mixer in enumerate(a.mixers()):
        if mixer in (LINEAR, SSM):
            total += _state(a, 4.0)
        elif mixer in (FULL, WINDOW) and i < (a.layers or 0) - a.kv_shared_layers:
            n = window if mixer == WINDOW else cells
            kv_heads, k, v = heads(a, mixer)
            if a.mla:
                total += n * s * _latent(a)
            else:
                total += n * s * (kv_heads * k + (kv_heads * v if fa else v_max))
    if a.index and a.family in ("deepseek32", "glm-dsa"):
        total += (a.index_layers or a.mixers().count(FULL)) * cells * s * a.index["dim"]
    if a.index and a.family == "minimax-m3":
        total += ((a.layers or 0) - a.dense_layers) * cells * s * (a.index["dim"] + (a.values or 0))
    return total * sequences


def _latent(a: Architecture) -> int:
    if a.mla_split:
        return (a.kv_rank or 0) + (a.rope_dim or 0)
    return (a.heads or 0) * ((a.nope_dim or 0) + (a.rope_dim or 0) + (a.v_head_dim or 0))


def _state(a: Architecture, s: float, conv: float = 4.0) -> float:
    """Bytes of one linear or state-space layer's state: the recurrent matrix in `s`, the convolution's in `conv`."""
    m = a.ssm
    if "v_heads" in m:
        key, value = m["k_heads"] * m["k_dim"], m["v_heads"] * m["v_dim"]
        return m["k_dim"] * value * s + (m["conv"] - 1) * (2 * key + value) * conv
    inner = m["heads"] * m["dim"]
    if "state" in m:
        return m["state"] * inner * s + (m["conv"] - 1) * (inner + 2 * m["groups"] * m["state"]) * conv
    return m["dim"] * inner * s + 3 * (m["conv"] - 1) * inner * conv


def _mlx(a: Architecture, context: int, kv_type: str, sequences: int) -> float | None:
    if a.attention == "V4":
        return None
    s, cells = (2.0, pad(context)) if kv_type in ("f16", "bf16") else (SIZES[kv_type], pad(context))
    if kv_type.startswith("q"):
        s = int(kv_type[1]) / 8 + 4 / 64
    total = 0.0
    for i, mixer in enumerate(a.mixers()):
        if mixer in (LINEAR, SSM):
            total += _state(a, 4.0, 2.0)
        elif mixer in (FULL, WINDOW) and i < (a.layers or 0) - a.kv_shared_layers:
            n = min(context, (a.window or 0) + PREFILL_STEP - 1) if mixer == WINDOW else cells
            kv_heads, k, v = heads(a, mixer)
            total += n * s * (_latent(a) if a.mla else kv_heads * (k + v))
    if a.index:
        total += (a.index_layers or a.mixers().count(FULL)) * cells * s * a.index["dim"]
    return total * sequences


def _v4(a: Architecture, context: int, s: float, *, ubatch: int = 512, ds4: bool = False) -> float:
    """DeepSeek V4: a raw window in every layer, compressed keys by ratio, an indexer where the ratio is 4.

    The compressors keep running states in f32: 2·ratio rows (ratio 4) or ratio rows (128), keys and scores.
    """
    head, dim = a.head_dim or 0, a.index["dim"]
    raw = (a.window or 0) if ds4 else pad(min(context, (a.window or 0) + ubatch))
    total = 0.0
    for ratio in a.compress:
        total += raw * head * s
        if ratio == 4:
            n = context / 4 if ds4 else pad(-(-context // 4))
            total += n * (head + dim) * s + 2 * 8 * 2 * (head + dim) * 4
        elif ratio == 128:
            n = context / 128 if ds4 else pad(-(-context // 128))
            total += n * head * s + 2 * 128 * head * 4
    if ds4:
        # What its checkpoint holds besides: a token id per position, the last logits, a header.
        total += context * 4 + (a.vocab or 0) * 4 + 396
    return total
