"""A small real language model of English prose about Python, trained in a minute or two, without any download.

    python train.py --out DIR [--params FILE.json]

The text is `pydoc_data.topics` of the standard library, which every Python has; every 12th topic is held out and
written beside the model as `held_out.txt`, some of the rest as `calibration.txt`. DIR is a folder as Hugging Face lays
it out: config.json, tokenizer.json, model.safetensors in bfloat16. Needs mlx, numpy and tokenizers; no torch. The same
versions and seed give the same bytes.
Prints JSON lines `{"progress": [done, total, "steps"]}` and at last `{"facts": {...}}`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

DEFAULTS: dict[str, Any] = {
    "architecture": "llama",
    "vocabulary": 1024,
    "hidden": 256,
    "feed_forward": 512,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "context": 512,
    "steps": 300,
    "batch": 8,
    "sequence": 128,
    "rate": 0.004,
    "seed": 0,
}
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
SPECIALS = ["<|bos|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def corpus() -> tuple[str, str]:
    """Text to train on and text held out, both English prose of the standard library."""
    from pydoc_data.topics import topics

    texts = [topics[k] for k in sorted(topics)]
    return "\n\n".join(t for i, t in enumerate(texts) if i % 12), "\n\n".join(texts[::12])


def tokenizer(text: str, vocabulary: int) -> Any:
    """A byte-level BPE tokenizer with GPT-2's pre-tokenizer, trained on `text`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIALS, show_progress=False, initial_alphabet=sorted(alphabet)
    )
    made.train_from_iterator([text], trainer)
    return made


def config(p: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """`config.json` of the model."""
    return {
        "architectures": [CLASSES[p["architecture"]]],
        "model_type": p["architecture"],
        "vocab_size": vocabulary,
        "hidden_size": p["hidden"],
        "intermediate_size": p["feed_forward"],
        "num_hidden_layers": p["layers"],
        "num_attention_heads": p["heads"],
        "num_key_value_heads": p["kv_heads"],
        "head_dim": p["head_dim"],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": p["context"],
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor, in the order of the file."""
    h, inner, d, arch = c["hidden_size"], c["intermediate_size"], c["head_dim"], c["model_type"]
    q, k = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for n in range(c["num_hidden_layers"]):
        at, mlp, layer = f"model.layers.{n}.self_attn.", f"model.layers.{n}.mlp.", f"model.layers.{n}."
        out |= {f"{layer}input_layernorm.weight": (h,), f"{layer}post_attention_layernorm.weight": (h,)}
        out |= {f"{at}q_proj.weight": (q, h), f"{at}k_proj.weight": (k, h), f"{at}v_proj.weight": (k, h)}
        out |= {f"{at}o_proj.weight": (h, q), f"{mlp}gate_proj.weight": (inner, h)}
        out |= {f"{mlp}up_proj.weight": (inner, h), f"{mlp}down_proj.weight": (h, inner)}
        if arch == "qwen2":
            out |= {f"{at}{x}_proj.bias": (q if x == "q" else k,) for x in "qkv"}
        if arch == "qwen3":
            out |= {f"{at}q_norm.weight": (d,), f"{at}k_norm.weight": (d,)}
    return out


def start(c: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Weights before training: ones for norms, small normal numbers for the rest, shrunk where layers add up."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes(c).items():
        if name.endswith("norm.weight"):
            out[name] = np.ones(shape, "f4")
            continue
        adds = "o_proj" in name or "down_proj" in name
        std = 0.02 / (math.sqrt(2 * c["num_hidden_layers"]) if adds else 1)
        out[name] = (rng.standard_normal(shape) * std).astype("f4")
    return out


def train(
    c: dict[str, Any], weights: dict[str, np.ndarray], ids: np.ndarray, held: np.ndarray, p: dict[str, Any]
) -> Any:
    """The weights after `steps` of AdamW, and what was measured."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optimizers
    from mlx.utils import tree_flatten

    module = importlib.import_module(f"mlx_lm.models.{c['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(c))
    model.load_weights([(k, mx.array(v)) for k, v in weights.items()])
    mx.random.seed(p["seed"])
    rng = np.random.default_rng(p["seed"])

    def loss(m: Any, x: Any, y: Any) -> Any:
        return nn.losses.cross_entropy(m(x).astype(mx.float32), y, reduction="mean")

    steps, batch, length = p["steps"], p["batch"], p["sequence"]
    optimizer = optimizers.AdamW(learning_rate=p["rate"], betas=[0.9, 0.95], weight_decay=0.1)
    both = nn.value_and_grad(model, loss)
    began = time.perf_counter()
    last = 0.0
    for step in range(steps):
        optimizer.learning_rate = p["rate"] * min(1, (step + 1) / 20) * (0.05 + 0.95 * (1 - step / steps))
        rows = np.stack([ids[j : j + length + 1] for j in rng.integers(0, len(ids) - length - 1, batch)])
        value, gradients = both(model, mx.array(rows[:, :-1]), mx.array(rows[:, 1:]))
        gradients, _ = optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state, value)
        last = value.item()
        if step % 10 == 9 or step + 1 == steps:
            say(progress=[step + 1, steps, "steps"], loss=round(last, 3))
    seconds = time.perf_counter() - began
    rows = held[: (len(held) - 1) // length * length + 1]
    x, y = rows[:-1].reshape(-1, length)[:32], rows[1:].reshape(-1, length)[:32]
    total = sum(loss(model, mx.array(x[i : i + 8]), mx.array(y[i : i + 8])).item() for i in range(0, len(x), 8))
    held_loss = total / math.ceil(len(x) / 8)
    trained = {k: np.array(v.astype(mx.float32)) for k, v in tree_flatten(model.parameters())}
    facts = {"loss": round(last, 4), "held_out_perplexity": round(math.exp(held_loss), 2), "seconds": round(seconds, 1)}
    return trained, facts


def save(path: Path, weights: dict[str, np.ndarray]) -> None:
    """`weights` as one safetensors file in bfloat16, rounded to nearest even."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, a in weights.items():
        head[name] = {"dtype": "BF16", "shape": list(a.shape), "data_offsets": [offset, offset + a.size * 2]}
        offset += a.size * 2
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in weights.values():
            u = np.ascontiguousarray(a, "<f4").view("<u4")
            f.write(((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2").tobytes())


def make(out: Path, p: dict[str, Any]) -> dict[str, Any]:
    """The whole model in `out`; returns what is known of it. `steps: 0` leaves the random weights."""
    unknown = sorted(set(p) - set(DEFAULTS))
    if unknown or p.get("architecture", "llama") not in CLASSES:
        raise SystemExit(f"tiny_lm takes {', '.join(DEFAULTS)}; architecture is one of {', '.join(CLASSES)}")
    p = {**DEFAULTS, **p}
    text, held = corpus()
    tok = tokenizer(text, p["vocabulary"])
    c = config(p, tok.get_vocab_size())
    weights, facts = start(c, p["seed"]), {}
    out.mkdir(parents=True, exist_ok=True)
    if p["steps"]:
        ids, tail = np.array(tok.encode(text).ids, "i4"), np.array(tok.encode(held).ids, "i4")
        trained, facts = train(c, weights, ids, tail, p)
        weights = {name: trained[name] for name in weights}
    tok.save(str(out / "tokenizer.json"))
    special = {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_max_length": p["context"],
        "chat_template": CHAT,
        "clean_up_tokenization_spaces": False,
    }
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    for name, value in (("config", c), ("generation_config", ends), ("tokenizer_config", settings)):
        (out / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    (out / "held_out.txt").write_text(held)
    (out / "calibration.txt").write_text(text[:60000])
    save(out / "model.safetensors", weights)
    return {"parameters": int(sum(a.size for a in weights.values())), "vocabulary": c["vocab_size"], **facts}


def say(**values: Any) -> None:
    """One JSON line for whoever started this."""
    print(json.dumps(values), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--params", type=Path)
    args = parser.parse_args()
    say(facts=make(args.out, json.loads(args.params.read_text()) if args.params else {}))


if __name__ == "__main__":
    main()
