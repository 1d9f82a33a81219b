"""Tiny models for the engines' tests: real folders, random weights with some spread, made in about a second."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

RECIPE = Path(__file__).parents[2] / "recipes" / "model" / "tiny_lm" / "train.py"


def recipe() -> ModuleType:
    """The recipe of the demo's model, as a module."""
    if "tiny_lm_recipe" not in sys.modules:
        spec = importlib.util.spec_from_file_location("tiny_lm_recipe", RECIPE)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules["tiny_lm_recipe"] = module
        spec.loader.exec_module(module)
    return sys.modules["tiny_lm_recipe"]


def model(folder: Path, *, spread: float = 4.0, **params: Any) -> Path:
    """A model of random weights, wide enough that its logits differ; `spread` multiplies them."""
    import numpy as np

    made = recipe()
    p = {**made.DEFAULTS, "steps": 0, "vocabulary": 400, **params}
    made.make(folder, p)
    config = json.loads((folder / "config.json").read_text())
    rng = np.random.default_rng(1)
    weights = {
        k: v + rng.standard_normal(v.shape).astype("f4") * 0.1 if v.ndim == 1 else v * spread
        for k, v in made.start(config, 0).items()
    }
    made.save(folder / "model.safetensors", weights)
    return folder


def shard(source: Path, folder: Path, parts: int = 3) -> Path:
    """The same model with its weights in several files and an index."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    raw = (source / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    head = {k: v for k, v in json.loads(raw[8 : 8 + size]).items() if k != "__metadata__"}
    names = sorted(head, reverse=True)
    index = {}
    for n in range(parts):
        file = f"model-{n + 1:05}-of-{parts:05}.safetensors"
        part: dict[str, Any] = {}
        data = b""
        for name in names[n::parts]:
            a, b = head[name]["data_offsets"]
            part[name] = {**head[name], "data_offsets": [len(data), len(data) + b - a]}
            data += raw[8 + size + a : 8 + size + b]
            index[name] = file
        text = json.dumps(part).encode()
        (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def nothing(done: float, total: float | None = None, unit: str = "B") -> None:
    """Progress nobody watches."""


def gguf(source: Path, out: Path, kind: str = "AUTO") -> Path:
    """The model as a GGUF of unquantized weights."""
    from lab.adapters import gguf_convert

    gguf_convert.convert({"source": str(source), "out": str(out), "type": kind, "name": "tiny"}, nothing)
    return out
