"""Evaluation as an experiment: how far a quantization's expectations are from the original's, on held-out text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lab.adapters import score

AGAINST = ("kl", "same_top")
"""What only says something of a level held against its original."""
KEPT = ("perplexity", *AGAINST, "tokens")


def original(
    models: dict[str, str], datasets: dict[str, str], outputs: dict[str, Path], tokens: int = 512
) -> dict[str, float]:
    """What the original expects after each token of the text, in `reference`, for the levels to be held against."""
    folder = outputs["reference"]
    folder.mkdir(parents=True)
    text = folder / "text.txt"
    with open(Path(datasets["text"]) / "test.jsonl", encoding="utf-8") as f:
        text.write_text("\n\n".join(json.loads(line)["text"] for line in f), encoding="utf-8")
    made = folder / "logits.npy"
    found = score.work({"folder": models["model"], "text": str(text), "tokens": tokens, "out": str(made)}, _quiet)
    (folder / "ids.json").write_text(json.dumps(found["ids"]))
    return _measures({n: v for n, v in found.items() if n not in AGAINST}, outputs)


def level(models: dict[str, str], datasets: dict[str, str], outputs: dict[str, Path]) -> dict[str, float]:
    """Perplexity, KL divergence from the original, share of equal likeliest tokens, bytes: a report, and metrics."""
    reference = Path(datasets["original"]) / "reference"
    ids = json.loads((reference / "ids.json").read_text())
    folder = Path(models["model"])
    found = score.work({"folder": str(folder), "ids": ids, "original": str(reference / "logits.npy")}, _quiet)
    found["bytes"] = sum(p.stat().st_size for p in folder.iterdir() if p.suffix in (".gguf", ".safetensors"))
    return _measures(found, outputs)


def _measures(found: dict[str, Any], outputs: dict[str, Path]) -> dict[str, float]:
    told = {n: float(found[n]) for n in (*KEPT, "bytes") if n in found}
    outputs["report"].write_text(json.dumps({**told, "engine": found["engine"], "version": found["version"]}, indent=1))
    about = {f"system/{n}": float(found[n]) for n in ("depth", "generated_tokens", "load")}
    return {**told, "tokens_per_second": float(found["tokens_per_second"]), **about}


def page(datasets: dict[str, Any], outputs: dict[str, Path], title: str = "Levels") -> dict[str, float]:
    """One page that holds every level's report against the others, with a plot per measure."""
    from lab.runs.plot import bars

    levels = {n: json.loads((Path(p) / "report").read_text()) for n, p in datasets["levels"].items()}
    names = [n for n in ("kl", "perplexity", "same_top", "bytes") if any(n in r for r in levels.values())]
    head = "".join(f"<th>{n}</th>" for n in names)
    rows = "".join(
        f"<tr><td>{level}</td>" + "".join(f"<td>{report.get(n, float('nan')):.5g}</td>" for n in names) + "</tr>"
        for level, report in levels.items()
    )
    plots = "".join(
        f"<figure data-metric={n}>{bars(n, {level: r[n] for level, r in levels.items() if n in r})}</figure>"
        for n in names
    )
    outputs["page"].write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>body{{font:14px sans-serif}}"
        f"td,th{{padding:.3em 1em;text-align:left}}</style><h1>{title}</h1><table><tr><th>level</th>{head}</tr>{rows}"
        f"</table>{plots}</html>\n",
        encoding="utf-8",
    )
    shutil.copy2(outputs["page"], outputs["page"].parents[1] / "artifacts" / "levels.html")
    return {f"{level}.kl": r["kl"] for level, r in levels.items() if "kl" in r}


def _quiet(done: float, total: float | None, unit: str) -> None:
    if total and done == total:
        print(f"{done:g} {unit}", flush=True)
