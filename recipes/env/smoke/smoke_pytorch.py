"""PyTorch computes and differentiates on mps, cuda or the CPU, the first there is."""

import json

print("step: import")
import torch

print("step: compute")
device = "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"
x = torch.randn(64, 64, device=device, requires_grad=True)
print("step: differentiate")
(x @ x.T).sum().backward()
assert x.grad is not None and torch.isfinite(x.grad).all()
out = {"version": torch.__version__, "device": device, "tested": ["import", "compute", "differentiate"]}
if device != "mps":
    out["notes"] = "mps is not available here"
print(json.dumps(out))
