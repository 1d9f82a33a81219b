"""The child of a calibration: an engine loads small meaningless models, generates and reads a prompt; prints JSON.

Two shapes tell two things apart: a deep one what a layer costs whatever its size (`alpha`), a wide one what share of
the memory's bandwidth weights are read at (`eta`, per type), and how many operations a prompt reaches (`flops`).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lab.forecast import Architecture
from lab.forecast.reads import Reads, weights_read

BASE: dict[str, Any] = {"family": "llama", "heads": 8, "heads_kv": 8, "head_dim": 64, "tied": False, "context": 1024}
DEEP = Architecture(layers=16, width=768, ffn=1536, vocab=256, **{**BASE, "heads": 12, "heads_kv": 12})
THIN = Architecture(layers=24, width=128, ffn=256, vocab=256, **{**BASE, "heads": 2, "heads_kv": 2})
"""The deep shape for MLX on a CPU."""
WIDE = Architecture(layers=4, width=1024, ffn=4096, vocab=8192, **{**BASE, "heads": 16, "heads_kv": 16})
TYPES = ("Q8_0", "F16", "Q4_K", "Q6_K", "Q3_K")
TOKENS, PROMPT = 16, 128
SLOW = Architecture(layers=2, width=512, ffn=1024, vocab=2048, **BASE)
"""What MLX is asked on a CPU, where its quantized products are slow."""
PLAIN = Architecture(layers=8, width=1024, ffn=2048, vocab=2048, **{**BASE, "heads": 16, "heads_kv": 16})
"""What is quantized: some 85 million weights."""


Run = Callable[[Architecture, str, int], tuple[float, float]]
"""An architecture, a type of weights and a prompt's tokens → seconds per generated token and per prompt token."""


def llama_cpp(folder: Path) -> Run:
    """llama.cpp through its Python library's low-level calls; models of random weights are written to `folder`."""
    import os

    import llama_cpp as lib

    from lab.adapters import gguf_random

    threads = max(1, os.cpu_count() or 1)

    def run(arch: Architecture, kind: str, prompt: int) -> tuple[float, float]:
        lib.llama_log_set(_silence(), None)
        path = folder / "random.gguf"
        gguf_random.write(path, arch, kind)
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 512, 512, 512
        params.n_threads = params.n_threads_batch = threads
        context = lib.llama_init_from_model(model, params)
        try:
            return _times(lambda n: _decode(lib, context, n), prompt)
        finally:
            lib.llama_free(context)
            lib.llama_model_free(model)
            path.unlink()

    return run


@cache
def _silence() -> Any:
    """Where llama.cpp's log goes: called whenever it has a word to say, so it lives as long as the process."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda *_: None)


def _decode(lib: Any, context: Any, count: int) -> None:
    import ctypes

    tokens = (ctypes.c_int32 * count)(*(i % 200 + 1 for i in range(count)))
    if lib.llama_decode(context, lib.llama_batch_get_one(tokens, count)):
        raise RuntimeError("llama_decode failed")
    lib.llama_synchronize(context)


def quantizing(folder: Path) -> float:
    """Weights per second that llama.cpp turns into Q4_K on all cores, from a random model in F16. Measures."""
    import ctypes

    import llama_cpp as lib

    from lab.adapters import gguf_random

    lib.llama_log_set(_silence(), None)
    source, out = folder / "random.gguf", folder / "quantized.gguf"
    gguf_random.write(source, PLAIN, "F16")
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.pure, params.nthread = lib.LLAMA_FTYPE_MOSTLY_Q4_K_S, True, 0
    begun = time.perf_counter()
    if lib.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)):
        raise RuntimeError("llama_model_quantize failed")
    taken = time.perf_counter() - begun
    for path in (source, out):
        path.unlink()
    return read(PLAIN, "F16").parameters / taken


def mlx(folder: Path) -> Run:
    """MLX through mlx-lm's own Llama."""
    import mlx.core as mx
    from mlx_lm.models import llama
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import quantize_model

    def run(arch: Architecture, kind: str, prompt: int) -> tuple[float, float]:
        args = llama.ModelArgs(
            model_type="llama", hidden_size=arch.width, num_hidden_layers=arch.layers, intermediate_size=arch.ffn,
            num_attention_heads=arch.heads, num_key_value_heads=arch.heads_kv, rms_norm_eps=1e-5,
            vocab_size=arch.vocab, head_dim=arch.head_dim, tie_word_embeddings=False,
        )  # fmt: skip
        model = llama.Model(args)
        model.set_dtype(mx.float16)
        if kind != "F16":
            model, _ = quantize_model(model, {}, 64, int(kind))
        mx.eval(model.parameters())
        cache = make_prompt_cache(model)

        def step(count: int) -> None:
            mx.eval(model(mx.array([[i % 200 + 1 for i in range(count)]]), cache=cache))

        return _times(step, min(prompt, 8) if few else prompt, 4 if few else TOKENS)

    few = not mx.metal.is_available()
    return run


def _times(step: Any, prompt: int, tokens: int = TOKENS) -> tuple[float, float]:
    """Seconds per generated token, and per prompt token (0 where none is asked)."""
    step(2)
    taken = []
    for _ in range(tokens):
        begun = time.perf_counter()
        step(1)
        taken.append(time.perf_counter() - begun)
    per_prompt = 0.0
    if prompt:
        begun = time.perf_counter()
        step(prompt)
        per_prompt = (time.perf_counter() - begun) / prompt
    return min(taken), per_prompt  # the best: what else runs here is no part of the machine


def fit(run: Run, band: float, types: tuple[str, ...], deep: Architecture, wide: Architecture) -> dict[str, Any]:
    """What an engine reaches, from its times on two shapes in each type; `band` is the memory's rate in GB/s. Measures.

    A layer's cost is the median of what the types say, as one measurement of a shared machine may be far off.
    """
    main = types[0]
    seen = {kind: (run(deep, kind, 0)[0], *run(wide, kind, PROMPT)) for kind in types}
    alpha = statistics.median(_layer(kind, deep, one, wide, two) for kind, (one, two, _) in seen.items())
    eta: dict[str, float] = {}
    flops: dict[str, float] = {}
    output = (wide.vocab or 0) * (wide.width or 0)
    for kind, (_, per_token, per_prompt) in seen.items():
        reads = read(wide, kind)
        reading = max(per_token - alpha * (wide.layers or 1), per_token / 4)
        eta[kind] = reads.dense / reading / (band * 1e9)
        flops[kind] = 2 * (reads.parameters - output) / max(1e-9, per_prompt)
    return {"eta": eta[main], "alpha": alpha, "flops": flops[main], "eta_by_type": eta, "flops_by_type": flops}


def _layer(kind: str, deep: Architecture, t1: float, wide: Architecture, t2: float) -> float:
    """Seconds a layer costs beside reading it: two equations, t = bytes/rate + alpha·layers, solved for alpha."""
    b1, b2, n1, n2 = read(deep, kind).dense, read(wide, kind).dense, deep.layers or 1, wide.layers or 1
    return max(0.0, (t1 * b2 - t2 * b1) / (n1 * b2 - n2 * b1))


def read(arch: Architecture, kind: str) -> Reads:
    """What a token reads of weights that are all of one type. Pure."""
    from lab.forecast import gguf_types

    if kind.isdigit():
        found = weights_read(arch, bits=int(kind), group_size=64)
    else:
        found = weights_read(arch, type="F16")
        if found and kind != "F16":
            share = gguf_types.bits(kind) / 16
            found = Reads(found.dense * share, found.experts * share, found.parameters)
    assert found
    return found


def _mlx_shapes() -> tuple[Architecture, Architecture]:
    import mlx.core as mx

    return (DEEP, WIDE) if mx.metal.is_available() else (THIN, SLOW)


Shapes = Callable[[], tuple[Architecture, Architecture]]
ENGINES: dict[str, tuple[Callable[[Path], Run], tuple[str, ...], Shapes]] = {
    "llama.cpp": (llama_cpp, TYPES, lambda: (DEEP, WIDE)),
    "mlx": (mlx, ("4", "8", "F16"), _mlx_shapes),
}
"""How each engine is measured: the way to run it, the types it is asked for, the deep and the wide shape."""

if __name__ == "__main__":
    _name, _folder, _band = sys.argv[1:4]
    _run, _types, _shapes = ENGINES[_name]
    _found = fit(_run(Path(_folder)), float(_band), _types, *_shapes())
    if _name == "llama.cpp":
        _found["quantize"] = quantizing(Path(_folder))
    print(json.dumps(_found), flush=True)
