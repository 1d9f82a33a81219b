"""MLX computes, differentiates and compiles on its default device."""

import json
from importlib.metadata import version

print("step: import")
import mlx.core as mx

print("step: compute")
a = mx.random.normal((64, 64), key=mx.random.key(0))
assert mx.allclose(a @ mx.linalg.inv(a, stream=mx.cpu), mx.eye(64), atol=1e-2).item()
print("step: differentiate")
assert mx.grad(lambda x: (x * x).sum())(mx.array([3.0])).item() == 6.0
print("step: quantize")
w, s, b = mx.quantize(a, group_size=32, bits=4)
assert mx.abs(mx.dequantize(w, s, b, group_size=32, bits=4) - a).max().item() < 0.6
device = "metal" if mx.default_device() == mx.gpu else "cpu"
print(
    json.dumps(
        {"version": version("mlx"), "device": device, "tested": ["import", "compute", "differentiate", "quantize"]}
    )
)
