"""MLX LM builds a tiny random llama, generates twice alike, and takes one LoRA step."""

import json
from importlib.metadata import version

print("step: import")
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx_lm.generate import generate_step
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tuner.utils import linear_to_lora_layers

print("step: load")
mx.random.seed(0)
args = ModelArgs(
    model_type="llama",
    hidden_size=64,
    num_hidden_layers=2,
    intermediate_size=128,
    num_attention_heads=2,
    rms_norm_eps=1e-5,
    vocab_size=256,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
model = Model(args)
mx.eval(model.parameters())
print("step: generate")


def tokens():
    prompt = mx.array([1, 2, 3])
    return [int(t) for t, _ in zip((t for t, _ in generate_step(prompt, model, max_tokens=8)), range(8))]


one, two = tokens(), tokens()
assert len(one) == 8 and one == two, (one, two)
print("step: lora")
model.freeze()
linear_to_lora_layers(model, 1, {"rank": 4, "scale": 10.0, "dropout": 0.0})


def loss(model, x):
    return nn.losses.cross_entropy(model(x[:, :-1]), x[:, 1:]).mean()


batch = mx.array([[1, 2, 3, 4, 5, 6, 7, 8]])
before, gradient = nn.value_and_grad(model, loss)(model, batch)
optim.Adam(1e-2).update(model, gradient)
mx.eval(model.parameters())
assert loss(model, batch).item() < before.item()
device = "metal" if mx.default_device() == mx.gpu else "cpu"
print(
    json.dumps(
        {
            "version": version("mlx-lm"),
            "device": device,
            "tested": ["import", "load", "generate 8 tokens, twice alike", "one LoRA step"],
        }
    )
)
