"""What is forecast is what the installed llama.cpp counts, picks and allocates, on shapes of every class.

Proves: issue 7, here for real: tiny models × types × contexts against llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import gguf_random
from lab.forecast import Architecture, Use, needs, weights
from lab.forecast.gguf_types import FILE_TYPES

pytestmark = pytest.mark.slow
llama = pytest.importorskip("llama_cpp")

BASE: dict[str, Any] = {
    "layers": 8, "width": 256, "heads": 4, "heads_kv": 2, "head_dim": 64, "ffn": 512, "vocab": 8192, "tied": False,
    "context": 8192,
}  # fmt: skip
MOE: dict[str, Any] = {"experts": 4, "experts_used": 2, "expert_ffn": 256}
SHAPES = {
    "dense GQA": Architecture(family="llama", **BASE),
    "dense MHA, tied": Architecture(family="qwen2", **{**BASE, "heads_kv": 4, "tied": True}),
    "GQA of 4, 17 layers": Architecture(family="qwen3", **{**BASE, "heads_kv": 1, "layers": 17}),
    "eight experts": Architecture(family="llama", **{**BASE, **MOE, "experts": 8, "expert_ffn": 512}),
    "mixture of experts": Architecture(family="qwen3moe", **{**BASE, **MOE}),
    "rows that fill no block": Architecture(
        family="llama", **{**BASE, "width": 192, "ffn": 480, "heads": 3, "heads_kv": 1}
    ),
    "sliding window": Architecture(
        family="gemma3", **{**BASE, "layers": 12, "tied": True, "window": 512, "full_layers": 2, "window_layers": 10}
    ),
    "window and experts": Architecture(
        family="gpt-oss",
        **{**BASE, **MOE, "ffn": None, "layers": 4, "window": 128, "full_layers": 2, "window_layers": 2},
    ),
    "MLA": Architecture(
        family="deepseek2",
        **{**BASE, **MOE, "head_dim": None, "heads_kv": 4, "kv_rank": 128, "q_rank": 64, "rope_dim": 32, "nope_dim": 64,
           "v_head_dim": 64, "shared_experts": 1, "dense_layers": 1},
    ),
    "linear attention": Architecture(
        family="qwen35",
        **{**BASE, "full_layers": 2, "linear_layers": 6,
           "ssm": {"k_heads": 2, "v_heads": 4, "k_dim": 64, "v_dim": 64, "conv": 4}},
    ),
}  # fmt: skip


SILENCE = llama.llama_log_callback(lambda *_: None)


class Engine:
    """llama.cpp with its log kept."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._keep = llama.llama_log_callback(lambda level, text, _: self.log.append(text.decode(errors="replace")))
        llama.llama_log_set(self._keep, None)

    def megabytes(self, pattern: str) -> float:
        return sum(float(x) for x in re.findall(pattern + r"\s*=\s*([\d.]+) MiB", "".join(self.log)))

    def quantized(self, path: Path, name: str) -> float | None:
        self.log.clear()
        params = llama.llama_model_quantize_default_params()
        params.ftype, params.dry_run = FILE_TYPES[name].id, True
        done = llama.llama_model_quantize(str(path).encode(), str(path.with_suffix(".out")).encode(), params)
        return None if done else self.megabytes("quant size")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    yield Engine()
    llama.llama_log_set(SILENCE, None)


@pytest.mark.parametrize("name", SHAPES)
def test_every_type_weighs_what_the_engine_says(name: str, engine: Engine, tmp_path: Path) -> None:
    """Of every file type, the engine's own dry run and the forecast agree to the last digit it prints."""
    path, arch = tmp_path / "m.gguf", SHAPES[name]
    gguf_random.write(path, arch)
    for kind in FILE_TYPES:
        if kind in ("F32", "F16", "BF16"):
            continue
        said, forecast = engine.quantized(path, kind), weights.gguf(arch, kind)
        if said is None:  # the engine refuses rows that fill no block
            assert forecast is None, kind
            continue
        assert forecast, kind
        assert said == pytest.approx(forecast.value / 2**20, abs=0.0051), kind


@pytest.mark.parametrize("name", SHAPES)
def test_the_engine_allocates_what_is_forecast(name: str, engine: Engine, tmp_path: Path) -> None:
    """Weights and cache exactly, and all memory within 5 %, at three contexts and two types of cache."""
    path, arch = tmp_path / "m.gguf", SHAPES[name]
    gguf_random.write(path, arch)
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    assert model, "".join(engine.log)[-400:]
    try:
        mine = weights.gguf(arch, "F16")
        assert mine
        assert llama.llama_model_size(model) == mine.value
        for context, kv_type, number in ((512, "f16", 1), (2048, "q8_0", 8), (8192, "f16", 1)):
            engine.log.clear()
            params = llama.llama_context_default_params()
            params.n_ctx, params.n_batch, params.n_ubatch = context, 512, 512
            params.flash_attn_type, params.swa_full, params.type_k, params.type_v = 1, False, number, number
            made = llama.llama_init_from_model(model, params)
            assert made, "".join(engine.log)[-400:]
            llama.llama_free(made)
            found = needs(arch, Use(type="F16", context=context, kv_type=kv_type))
            assert found.cache
            assert found.buffer
            cache, buffer = engine.megabytes("(?:KV|RS) buffer size"), engine.megabytes("compute buffer size")
            assert cache == pytest.approx(found.cache.value / 2**20, abs=0.0151)
            real = mine.value / 2**20 + cache + buffer
            forecast = (mine.value + found.cache.value + found.buffer.value) / 2**20
            assert forecast == pytest.approx(real, rel=0.05), (context, buffer, found.buffer.value / 2**20)
            assert found.peak
            assert found.peak.value / 2**20 >= real
    finally:
        llama.llama_model_free(model)
