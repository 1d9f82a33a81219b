"""A training loop in PyTorch: MPS on Apple silicon, CUDA where there is one, the CPU elsewhere; it resumes to the bit.

A small recurrent model of characters learns the dataset's text. Replace `Model` and `batches` by your own: the rest
(device, checkpoints, resume, live loss, held-out loss) stays.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import nn

import lab.sdk as lab


class Model(nn.Module):
    """Characters in, the next one's likelihood out."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.cell = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Batch × length of characters → batch × length × vocabulary."""
        return self.head(self.cell(self.embed(x))[0])


def main(
    datasets: dict[str, str],
    outputs: dict[str, Path],
    checkpoints: Path,
    resumed: bool,
    steps: int = 200,
    rate: float = 0.003,
    hidden: int = 64,
    batch: int = 16,
    length: int = 64,
    every: int = 20,
    device: str = "auto",
) -> dict[str, float]:
    """The output `model` holds weights and characters; `loss` is logged live, `held_out_loss` at each checkpoint."""
    where = torch.device(chosen() if device == "auto" else device)
    text, held = (texts(Path(datasets["text"]) / f"{part}.jsonl") for part in ("train", "test"))
    letters = sorted(set(text))
    codes = {c: n for n, c in enumerate(letters)}
    train, test = (torch.tensor([codes[c] for c in t if c in codes]) for t in (text, held))
    model = Model(len(letters), hidden).to(where)
    step_ = torch.optim.AdamW(model.parameters(), rate)
    order = torch.Generator().manual_seed(lab.seed())
    start, told = 0, {"loss": float("nan"), "held_out_loss": float("nan")}
    kept = sorted(checkpoints.glob("step-*.pt"))
    if resumed and kept:
        found = torch.load(kept[-1], map_location=where, weights_only=True)
        model.load_state_dict(found["model"])
        step_.load_state_dict(found["optimizer"])
        order.set_state(found["order"].cpu())
        start = found["step"]
    for step in range(start, steps):
        x, y = (t.to(where) for t in batches(train, order, batch, length))
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        step_.zero_grad()
        loss.backward()
        step_.step()
        told["loss"] = loss.item()
        lab.log({"loss": told["loss"]}, step=step)
        if (step + 1) % every == 0 or step + 1 == steps:
            told["held_out_loss"] = measured(model, test[: 64 * length], length, where)
            lab.log({"held_out_loss": told["held_out_loss"]}, step=step)
            print(f"step {step + 1} of {steps}", *(f"{n} {v:.4f}" for n, v in told.items()), flush=True)
            state = {"model": model.state_dict(), "optimizer": step_.state_dict(), "order": order.get_state()}
            put({**state, "step": step + 1}, checkpoints / f"step-{step + 1:07d}.pt")
    folder = outputs["model"]
    folder.mkdir(parents=True, exist_ok=True)
    put({k: v.cpu() for k, v in model.state_dict().items()}, folder / "weights.pt")
    (folder / "letters.json").write_text(json.dumps(letters))
    return told


def chosen() -> str:
    """The fastest device there is."""
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if torch.cuda.is_available() else "cpu"


def batches(data: torch.Tensor, order: torch.Generator, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows at random places, and the same one character on."""
    at = torch.randint(len(data) - length - 1, (batch,), generator=order)
    return torch.stack([data[i : i + length] for i in at]), torch.stack([data[i + 1 : i + length + 1] for i in at])


@torch.no_grad()
def measured(model: nn.Module, data: torch.Tensor, length: int, where: torch.device) -> float:
    """Mean loss per character of text the model has not seen."""
    rows = data[: (len(data) - 1) // length * length + 1]
    x, y = (rows[n : n + len(rows) - 1].reshape(-1, length).to(where) for n in (0, 1))
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()


def put(value: object, path: Path) -> None:
    """A file that is whole or not there."""
    temporary = path.with_name(f".{path.name}")
    torch.save(value, temporary)
    os.replace(temporary, path)


def texts(path: Path) -> str:
    """The `text` of every line, one after the other."""
    with open(path, encoding="utf-8") as f:
        return "\n\n".join(json.loads(line)["text"] for line in f)
