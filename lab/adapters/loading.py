"""Loading: the engines by name. Knows them all, so that they need not know each other or their chooser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.adapters import child, runners
from lab.runs.runner import Runner


def load(folder: Path, *, engine_: str = "", context: int | None = None, **options: Any) -> Runner:
    """The model in a folder, loaded by the engine its files are for. Frameworks not installed are a Problem."""
    name = engine_ or runners.engine(folder)
    try:
        if name == "llama.cpp":
            from lab.adapters import llamacpp

            return llamacpp.LlamaCpp(runners.gguf(folder), context=context, **options)
        from lab.adapters import mlx

        return mlx.MLX(folder, context=context, **options)
    except ImportError as e:
        raise child.missing(e) from e
