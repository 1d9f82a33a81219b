"""Loading: the engines by name. Knows them all, so that they need not know each other or their chooser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.adapters import child, runners
from lab.core.problem import did_you_mean, problem
from lab.runs.runner import Runner


def load(folder: Path, *, engine_: str = "", context: int | None = None, **options: Any) -> Runner:
    """The model in a folder, loaded by the engine its files are for. Frameworks not installed are a Problem."""
    fits = {"llama.cpp": ("llama.cpp",), "mlx": ("mlx", "transformers")}[runners.engine(folder)]
    name = engine_ or fits[0]
    if name not in fits:
        known = did_you_mean(name, ("llama.cpp", "mlx", "transformers"))
        raise problem(f"{name} does not run what is in {folder}{known}", do=f"use {' or '.join(fits)}")
    try:
        if name == "llama.cpp":
            from lab.adapters import llamacpp

            return llamacpp.LlamaCpp(runners.gguf(folder), context=context, **options)
        if name == "transformers":
            from lab.adapters import hf

            return hf.Transformers(folder, context=context, **options)
        from lab.adapters import mlx

        return mlx.MLX(folder, context=context, **options)
    except ImportError as e:
        raise child.missing(e) from e
