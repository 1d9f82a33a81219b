"""Transformers builds a tiny random llama and generates twice alike, on mps, cuda or the CPU."""

import json

print("step: import")
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

print("step: load")
torch.manual_seed(0)
device = "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"
config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
model = LlamaForCausalLM(config).to(device).eval()
print("step: generate")
prompt = torch.tensor([[1, 2, 3]], device=device)
one, two = (model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist() for _ in range(2))
assert one == two and len(one[0]) > 3
print(
    json.dumps(
        {"version": transformers.__version__, "device": device, "tested": ["import", "load", "generate, twice alike"]}
    )
)
