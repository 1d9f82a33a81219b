"""What is forecast is what mlx-lm builds: weights of its own models, unquantized and quantized, and their caches.

Proves: issue 7, here for real: tiny models × bits × contexts against MLX. Nothing is evaluated: MLX's arrays are lazy.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from lab.forecast import cache, reading, weights

pytestmark = pytest.mark.slow
mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

BASE: dict[str, Any] = {
    "hidden_size": 512, "num_hidden_layers": 4, "intermediate_size": 1024, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "max_position_embeddings": 4096, "rope_theta": 10000.0,
}  # fmt: skip
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 64, "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**BASE, "model_type": "llama"},
    "qwen2": {**BASE, "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {**BASE, "model_type": "qwen3"},
    "qwen3_moe": {
        **BASE, "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
    },
    "deepseek_v3": {
        **BASE, "model_type": "deepseek_v3", "num_key_value_heads": 8, "kv_lora_rank": 128, "q_lora_rank": 64,
        "qk_rope_head_dim": 32, "qk_nope_head_dim": 64, "v_head_dim": 64, "n_routed_experts": 8, "n_shared_experts": 1,
        "num_experts_per_tok": 2, "moe_intermediate_size": 256, "first_k_dense_replace": 1, "n_group": 1,
        "topk_group": 1, "routed_scaling_factor": 1.0, "moe_layer_freq": 1,
    },
    "qwen3_5": {**BASE, **LINEAR, "model_type": "qwen3_5"},
    "glm4_moe": {
        **BASE, "model_type": "glm4_moe", "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "moe_intermediate_size": 256, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
        "routed_scaling_factor": 1.0, "use_qk_norm": False, "norm_topk_prob": True, "attention_bias": True,
        "rope_scaling": None, "partial_rotary_factor": 0.5,
    },
}  # fmt: skip


def build(config: dict[str, Any]) -> Any:
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    args = {**config, "text_config": config} if config["model_type"] == "qwen3_5" else config
    model = module.Model(module.ModelArgs.from_dict(args))
    model.set_dtype(mx.bfloat16, getattr(model, "cast_predicate", None) and (lambda dt: True))
    return model


def nbytes(model: Any) -> int:
    from mlx.utils import tree_flatten

    return sum(v.nbytes for _, v in tree_flatten(model.parameters()))


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_what_mlx_builds(name: str) -> None:
    """Within 0.1 % of the parameters of mlx-lm's own model, in 16 bits and in each of its quantizations."""
    from mlx_lm.utils import quantize_model

    config = CONFIGS[name]
    arch = reading.from_config(config)
    plain = weights.mlx_unquantized(arch)
    assert plain
    assert plain.value == pytest.approx(nbytes(build(config)), rel=1e-3)
    for bits, group, mode in ((4, 64, "affine"), (8, 32, "affine"), (4, 32, "mxfp4")):
        model, _ = quantize_model(build(config), dict(config), group, bits, mode=mode)
        found = weights.mlx(arch, bits, group, mode=mode)
        assert found
        assert found.value == pytest.approx(nbytes(model), rel=2e-3), (bits, group, mode)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_is_what_mlx_holds(name: str) -> None:
    """The bytes of mlx-lm's own cache after a lazy prompt are the forecast's."""
    from mlx_lm.models.cache import make_prompt_cache

    config = CONFIGS[name]
    arch, model = reading.from_config(config), build(config)
    for context in (256, 1024):
        made = make_prompt_cache(model)
        model(mx.zeros((1, context), dtype=mx.int32), cache=made)
        found = cache.kv(arch, context, engine="mlx", kv_type="bf16")
        assert found
        assert found.value == pytest.approx(sum(c.nbytes for c in made), rel=1e-2), context
