"""A rung of the ladder: a model of some size is loaded and generates; passed or failed, with the reason."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

TOKENS = 8


def climb(models: dict[str, str], outputs: dict[str, Path]) -> dict[str, float]:
    """1 or 0 for passed, the parameters, and the seconds it took to load it and generate."""
    from lab.adapters.loading import load

    folder, began, why, made = Path(models["model"]), time.perf_counter(), "", 0
    try:
        runner = load(folder)
        made = sum(1 for _ in runner.generate("The", tokens=TOKENS))
        runner.close()
    except Exception as e:  # whatever keeps it from running is the result
        why = f"{type(e).__name__}: {e}"
    seconds = time.perf_counter() - began
    report = {"passed": made > 0, "why": why, "parameters": parameters(folder), "seconds": round(seconds, 3)}
    outputs["report"].write_text(json.dumps(report, indent=1))
    return {"passed": float(made > 0), "parameters": float(report["parameters"]), "seconds": seconds}


def parameters(folder: Path) -> int:
    """How many parameters the safetensors of a folder hold, by their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as f:
            head = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        total += sum(math.prod(t["shape"]) for name, t in head.items() if name != "__metadata__")
    return total


def page(datasets: dict[str, str], outputs: dict[str, Path]) -> dict[str, float]:
    """`ladder.md`: a row a rung; how many passed."""
    found = {name: json.loads(Path(path, "report").read_text()) for name, path in sorted(datasets.items())}
    rows = []
    for name, r in found.items():
        here = "passed" if r["passed"] else f"failed: {r['why']}"
        rows.append(f"| {name} | {r['parameters'] / 1e6:.1f} M | {here} | {r['seconds']} s |")
    lines = ["| rung | parameters | here | took |", "|---|---|---|---|", *rows]
    outputs["ladder"].write_text("\n".join(lines) + "\n")
    return {"passed": float(sum(r["passed"] for r in found.values()))}
