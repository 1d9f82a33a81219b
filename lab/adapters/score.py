"""Score: how far a level is from its original, how fast it is and what it holds, each model in a child of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from lab.adapters import child, loading, machine
from lab.adapters.child import Progress, Watcher
from lab.core.facts import Facts
from lab.runs.runner import Sampling

WINDOW = 512
"""Tokens that are seen together; the same for every level."""
PACKAGES = {"llama.cpp": ("llama-cpp-python",), "mlx": ("mlx-lm", "mlx")}


def version(engine: str) -> str:
    """The engine's installed version without importing it; empty where it is not installed."""
    try:
        return ", ".join(f"{p} {installed(p)}" for p in PACKAGES[engine])
    except PackageNotFoundError:
        return ""


def reference(
    folder: Path, text: Path, tokens: int, out: Path, log: Path, watch: Watcher | None = None
) -> dict[str, Any]:
    """The original's tokens of the text, and what it expects after each, in `out`; returns ids and its own measures."""
    args = {"folder": str(folder), "text": str(text), "tokens": tokens, "out": str(out)}
    return child.run("lab.adapters.score:work", args, log=log, watch=watch, what="scoring the original")


def level(folder: Path, ids: Sequence[int], original: Path, log: Path, watch: Watcher | None = None) -> dict[str, Any]:
    """A level's measures beside the original's expectations."""
    args = {"folder": str(folder), "ids": list(ids), "original": str(original)}
    return child.run("lab.adapters.score:work", args, log=log, watch=watch, what=f"scoring {folder.name}")


def bench(folder: Path, args: Mapping[str, Any], log: Path, watch: Watcher | None = None) -> dict[str, Any]:
    """Rates, time to first token and peak memory at each context depth."""
    target = "lab.adapters.score:measure"
    return child.run(target, {"folder": str(folder), **args}, log=log, watch=watch, what=f"the bench of {folder.name}")


def work(args: Facts, progress: Progress) -> Facts:
    """Runs in a child: speed and memory first, as it would be used; then exact logits against the original's."""
    import numpy as np

    folder, load = Path(args["folder"]), machine.load()
    with loading.load(folder) as runner:
        found: dict[str, Any] = {"engine": runner.engine, "version": runner.version, "device": runner.device}
        context = runner.context
        prompt = "The "
        list(runner.generate(prompt, tokens=4))
        best = max((_times(runner, prompt, min(48, context - 16)) for _ in range(3)), key=lambda t: t[1])
        middle = len(runner.tokenize(prompt, special=True)) + best[2] // 2
        found |= {"tokens_per_second": round(best[1], 1), "peak": runner.peak(), "context": context}
        found |= {"generated_tokens": best[2], "depth": middle, "load": round(load, 2)}
        ids = args.get("ids") or runner.tokenize(Path(args["text"]).read_text(encoding="utf-8", errors="replace"))
    ids = list(ids)[: args.get("tokens") or len(ids)]
    size = min(WINDOW, context)
    pieces = [p for i in range(0, len(ids), size) if len(p := ids[i : i + size]) > 1]
    total = sum(map(len, pieces))
    original = np.load(args["original"], mmap_mode="r") if args.get("original") else None
    nll = kl = 0.0
    same = done = 0
    kept = []
    with loading.load(folder, context=size, exact=True) as runner:
        for piece in pieces:
            logp = _log_softmax(runner.logits(piece))
            nll -= float(logp[np.arange(len(piece) - 1), piece[1:]].sum())
            if original is not None:
                theirs = original[done : done + len(piece)].astype(np.float64)
                mine = logp[:, : theirs.shape[1]]
                kl += float((np.exp(theirs) * (theirs - mine)).sum())
                same += int((theirs.argmax(-1) == mine.argmax(-1)).sum())
            else:
                kept.append(logp.astype(np.float32))
            done += len(piece)
            progress(done, total, "tokens")
    if original is None:
        np.save(args["out"], np.concatenate(kept))
    return {
        **found,
        "ids": ids if original is None else None,
        "tokens": total,
        "perplexity": float(np.exp(nll / max(total - len(pieces), 1))),
        "kl": kl / total if original is not None else 0.0,
        "same_top": same / total if original is not None else 1.0,
    }


def measure(args: Facts, progress: Progress) -> Facts:
    """Runs in a child: for each depth, a prompt that long and then some tokens, the median of several times."""
    import statistics

    folder = Path(args["folder"])
    rows = []
    began = time.perf_counter()
    with loading.load(folder, context=args.get("context")) as runner:
        loaded = time.perf_counter() - began
        text = "The quick brown fox jumps over the lazy dog while the server answers another question. "
        per = max(len(runner.tokenize(text)), 1)
        list(runner.generate(text, tokens=4))
        for n, depth in enumerate(args["depths"]):
            fits = max(1, min(depth, runner.context - args["tokens"] - 1))
            prompt = runner.detokenize(runner.tokenize(text * (fits // per + 1))[:fits])
            length = len(runner.tokenize(prompt, special=True))
            times = [_times(runner, prompt, args["tokens"]) for _ in range(args["repeats"])]
            first = statistics.median(t[0] for t in times)
            rows.append({
                "depth": length,
                "asked": depth,
                "first": round(first, 4),
                "prompt_rate": round(length / first, 1) if first else 0.0,
                "rate": round(statistics.median(t[1] for t in times), 1),
                "tokens": times[0][2],
                "repeats": len(times),
            })  # fmt: skip
            progress(n + 1, len(args["depths"]), "depths")
        return {
            "rows": rows,
            "load": round(loaded, 3),
            "engine": runner.engine,
            "version": runner.version,
            "device": runner.device,
            "context": runner.context,
            "peak": runner.peak(),
        }


def _times(runner: Any, prompt: str, tokens: int) -> tuple[float, float, int]:
    """Seconds to the first token, tokens per second after it, and how many there were."""
    began = time.perf_counter()
    first = last = 0.0
    count = 0
    # Sampled, so that a small model does not end its text at once.
    for piece in runner.generate(prompt, tokens=tokens, sampling=Sampling(1.0, count)):
        if piece.token < 0:
            continue
        last = time.perf_counter()
        count += 1
        first = first or last
    rate = (count - 1) / (last - first) if count > 1 and last > first else 0.0
    return (first or time.perf_counter()) - began, rate, count


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
