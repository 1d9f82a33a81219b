"""llama.cpp loads a tiny random GGUF, generates from it twice alike, and embeds nothing of the network."""

import json
import tempfile
from pathlib import Path

print("step: import")
import gguf
import llama_cpp
import numpy as np


def tiny(path):
    """A one-layer llama with random weights and a byte vocabulary."""
    width, heads, inner, ids = 64, 2, 128, 259
    random = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(256)
    w.add_embedding_length(width)
    w.add_block_count(1)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(width // heads)
    w.add_tokenizer_model("llama")
    w.add_token_list([b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))])
    w.add_token_scores([0.0] * ids)
    w.add_token_types([2, 3, 3] + [6] * 256)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)

    def add(name, *shape):
        w.add_tensor(name, random.normal(0, 0.05, shape).astype(np.float32))

    add("token_embd.weight", ids, width)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{name}.weight", width, width)
    add("blk.0.ffn_gate.weight", inner, width)
    add("blk.0.ffn_up.weight", inner, width)
    add("blk.0.ffn_down.weight", width, inner)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        w.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    add("output.weight", ids, width)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


with tempfile.TemporaryDirectory() as folder:
    print("step: load")
    path = Path(folder, "tiny.gguf")
    tiny(str(path))
    model = llama_cpp.Llama(str(path), n_ctx=128, n_threads=1, seed=1, verbose=False, logits_all=False)
    print("step: generate")
    one = model("hello", max_tokens=8, temperature=0.0, seed=1)
    model.reset()
    two = model("hello", max_tokens=8, temperature=0.0, seed=1)
    assert one["choices"][0]["text"] == two["choices"][0]["text"], "the same seed gave other tokens"
    tokens = one["usage"]["completion_tokens"]
    assert tokens > 0
    model.close()
metal = llama_cpp.llama_supports_gpu_offload()
print(
    json.dumps(
        {
            "version": llama_cpp.__version__,
            "device": "gpu" if metal else "cpu",
            "tested": ["import", "load", f"generate {tokens} tokens, twice alike"],
        }
    )
)
