"""Tiny real model files, written by the libraries that define their formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 512,
}


def safetensors(folder: Path, config: dict[str, Any] | None = None, shards: int = 1, tensors: Any = None) -> int:
    """A folder with config, tokenizer files and weights; returns the number of parameters."""
    import numpy
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = tensors or {
        "model.embed_tokens.weight": numpy.ones((96, 64), "float16"),
        "model.layers.0.mlp.up_proj.weight": numpy.full((128, 64), 0.5, "float16"),
        "lm_head.weight": numpy.zeros((96, 64), "float16"),
    }
    names = sorted(weights)
    for n in range(shards):
        part = {k: weights[k] for k in names[n::shards]}
        name = "model.safetensors" if shards == 1 else f"model-{n + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return sum(int(w.size) for w in weights.values())


def gguf(file: Path, tokens: int = 96, kind: str = "Q8_0") -> int:
    """A GGUF file with a real header and quantized tensors; returns the number of parameters."""
    import numpy
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    writer = GGUFWriter(file, "llama")
    writer.add_context_length(2048)
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_license("mit")
    writer.add_chat_template("{{ messages }}")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{n}" for n in range(tokens)])
    weights = numpy.linspace(-1, 1, 64 * 64, dtype="float32").reshape(64, 64)
    which = GGMLQuantizationType[kind]
    writer.add_tensor("blk.0.ffn_up.weight", quants.quantize(weights, which), raw_dtype=which)
    writer.add_tensor("output_norm.weight", numpy.ones(64, "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return 64 * 64 + 64
