"""Published test functions with known minima; a copy of this file is the code of the tests' inline experiments."""

import math


def branin(x: float, y: float) -> dict:
    """Minimum 0.397887 at (π, 2.275) and two more, on [-5, 10] × [0, 15]."""
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return {"value": (y - b * x**2 + c * x - 6) ** 2 + 10 * (1 - t) * math.cos(x) + 10}


def rosenbrock(x: float, y: float) -> dict:
    """Minimum 0 at (1, 1)."""
    return {"value": 100 * (y - x**2) ** 2 + (1 - x) ** 2}


A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def hartmann6(a: float, b: float, c: float, d: float, e: float, f: float) -> dict:
    """Minimum -3.32237 inside the unit cube."""
    x = (a, b, c, d, e, f)
    inner = [sum(A[i][j] * (x[j] - P[i][j]) ** 2 for j in range(6)) for i in range(4)]
    return {"value": -sum(w * math.exp(-s) for w, s in zip((1.0, 1.2, 3.0, 3.2), inner, strict=True))}


def two(x: float, y: float, size: int = 1) -> dict:
    """Two metrics that pull apart, and one to constrain."""
    return {"value": x**2 + y**2, "other": (x - 2) ** 2 + y**2, "weight": size * x}


def branch(kind: str, depth: int = 0, rate: float = 0.0) -> dict:
    """A tree with a depth or a line with a rate; which parameters came is told."""
    return {"value": depth if kind == "tree" else rate, "has_depth": float(depth > 0), "has_rate": float(rate > 0)}
