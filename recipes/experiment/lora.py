"""LoRA with mlx-lm: an adapter trained on declared text, and the fused model; QLoRA where the base is quantized.

    experiment/tune.yaml  call: recipes.experiment.lora:adapter   models: {base: M}   datasets: {text: D}
    experiment/fuse.yaml  call: recipes.experiment.lora:fused     models: {base: M}   datasets: {tuned: experiment.tune}

The dataset holds `train.jsonl` and, to validate on, `valid.jsonl` or `test.jsonl`: lines with `text`, `messages`, or
`prompt` and `completion`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import lab.sdk as lab


def adapter(
    models: dict[str, str],
    datasets: dict[str, str],
    outputs: dict[str, Path],
    checkpoints: Path,
    resumed: bool,
    seed: int,
    iterations: int = 200,
    rate: float = 1e-4,
    rank: int = 8,
    scale: float = 20.0,
    dropout: float = 0.0,
    layers: int = 16,
    batch: int = 4,
    length: int = 512,
    every: int = 20,
    mask_prompt: bool = False,
) -> dict[str, float]:
    """The output `adapter`, as `mlx_lm` loads it; the losses are logged every `every` iterations, with a checkpoint.

    A resumed run goes on from the last checkpoint's weights; the optimizer's moments start anew.
    """
    import mlx.core as mx
    import mlx.optimizers as optim
    import numpy as np
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.datasets import CacheDataset
    from mlx_lm.tuner.trainer import TrainingArgs, train
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load

    model, tokenizer = load(models["base"])[:2]
    text = Path(datasets["text"])
    held = next((text / n for n in ("valid.jsonl", "test.jsonl") if (text / n).exists()), None)
    wanted = {"rank": rank, "scale": scale, "dropout": dropout}
    layers = min(layers, len(model.layers))
    np.random.seed(seed)
    mx.random.seed(seed)
    model.freeze()
    linear_to_lora_layers(model, layers, wanted)
    kept = sorted(checkpoints.glob("adapter-*.safetensors"))
    start = 0
    if resumed and kept:
        model.load_weights(str(kept[-1]), strict=False)
        start = int(kept[-1].stem.rpartition("-")[2])
    losses: dict[str, float] = {}

    class Told:
        """What mlx-lm reports is logged, and the weights are kept."""

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            at = start + int(info["iteration"])
            losses["train_loss"] = float(info["train_loss"])
            lab.log({"train_loss": losses["train_loss"]}, step=at)
            save(checkpoints / f"adapter-{at:07d}.safetensors")
            print(f"iteration {at} of {iterations}: train loss {losses['train_loss']:.4f}", file=out, flush=True)

        def on_val_loss_report(self, info: dict[str, Any]) -> None:
            at = start + int(info["iteration"]) + 1
            losses["validation_loss"] = float(info["val_loss"])
            lab.log({"validation_loss": losses["validation_loss"]}, step=at)

    def save(path: Path) -> None:
        weights = dict(tree_flatten(model.trainable_parameters()))
        temporary = path.with_name(f".{path.name}")
        mx.save_safetensors(str(temporary), weights)
        os.replace(temporary, path)

    folder = outputs["adapter"]
    folder.mkdir(parents=True, exist_ok=True)
    args = TrainingArgs(
        batch_size=batch, iters=max(iterations - start, 0), val_batches=8, steps_per_report=every,
        steps_per_eval=max(every, 1), steps_per_save=iterations + 1, max_seq_length=length,
        adapter_file=str(folder / "adapters.safetensors"),
    )  # fmt: skip
    data = [CacheDataset(rows(p, tokenizer, mask_prompt)) if p else None for p in (text / "train.jsonl", held)]
    with open(os.dup(1), "w") as out, open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        train(model, optim.Adam(learning_rate=rate), data[0], data[1], args, training_callback=Told())
    save(folder / "adapters.safetensors")
    config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": wanted}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    return losses


def fused(
    models: dict[str, str], datasets: dict[str, str], outputs: dict[str, Path], dequantize: bool = False
) -> dict[str, float]:
    """The base with the adapter folded in, in the output `model`: a model like any other, to quantize or to serve."""
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.utils import dequantize_model, load, save

    made = Path(datasets["tuned"]) / "adapter"
    model, tokenizer, config = load(models["base"], adapter_path=str(made), return_config=True)
    folded = [(n, m.fuse(dequantize=dequantize)) for n, m in model.named_modules() if hasattr(m, "fuse")]
    model.update_modules(tree_unflatten(folded))
    if dequantize:
        model = dequantize_model(model)
        config = {k: v for k, v in config.items() if k not in ("quantization", "quantization_config")}
    folder = outputs["model"]
    shutil.rmtree(folder, ignore_errors=True)
    save(folder, models["base"], model, tokenizer, config, donate_model=False)
    count = sum(v.size for _, v in tree_flatten(model.parameters()))
    return {"fused_layers": float(len(folded)), "parameters": float(count)}


def rows(path: Path, tokenizer: Any, mask_prompt: bool) -> Any:
    """The file's lines as mlx-lm's dataset of whatever shape they have."""
    from types import SimpleNamespace

    from mlx_lm.tuner.datasets import create_dataset

    with open(path, encoding="utf-8") as f:
        found = [json.loads(line) for line in f if line.strip()]
    return create_dataset(found, tokenizer, SimpleNamespace(mask_prompt=mask_prompt))
