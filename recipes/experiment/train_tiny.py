"""Training as an experiment: the recipe `tiny_lm` on a declared dataset, its loss logged live."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lab.sdk as lab
from recipes.model.tiny_lm import train as tiny


def main(
    datasets: dict[str, str],
    outputs: dict[str, Path],
    seed: int,
    steps: int = 150,
    rate: float = 0.004,
    layers: int = 2,
    width: int = 256,
) -> dict[str, float]:
    """A model in the output `model`, made from `train.jsonl` of the dataset `text`; `test.jsonl` is held out."""
    text, held = ("\n\n".join(texts(Path(datasets["text"]) / f"{part}.jsonl")) for part in ("train", "test"))

    def say(**told: Any) -> None:
        if "loss" in told:
            lab.log({"loss": told["loss"]}, step=told["progress"][0])
        print(json.dumps(told), flush=True)

    tiny.corpus, tiny.say = lambda: (text, held), say  # type: ignore[assignment]
    size = {"layers": layers, "hidden": width, "feed_forward": 2 * width}
    known = tiny.make(outputs["model"], {"steps": steps, "rate": rate, "seed": seed, **size})
    return {"perplexity": float(known.get("held_out_perplexity", math.nan)), "parameters": float(known["parameters"])}


def texts(path: Path) -> list[str]:
    """The `text` of every line."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f]
