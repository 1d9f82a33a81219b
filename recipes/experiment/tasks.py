"""Task accuracy through llama.cpp or MLX: which choice a model finds likeliest, and how near its own words come.

The dataset is JSON lines (`test.jsonl`, else all of them): `{"question": …, "choices": [a, b], "answer": 1}` is scored
by likelihood, `{"question": …, "answer": "text"}` by what the model writes. Both may be in one file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lab.sdk as lab
from lab.adapters import loading
from lab.sdk import scores


def accuracy(
    models: dict[str, str],
    datasets: dict[str, str],
    outputs: dict[str, Path],
    tokens: int = 32,
    context: int = 512,
    limit: int = 0,
    template: str = "{question}\n",
) -> dict[str, float]:
    """Accuracy (also by length-normalized likelihood) and macro F1 of choices; exact match, BLEU, ROUGE-L of answers.

    The output `answers` holds each question with what was said, so that a figure can be looked into.
    """
    told: list[dict[str, Any]] = []
    with loading.load(Path(models["model"]), context=context, exact=True) as model:
        found = questions(Path(datasets["tasks"]), limit)
        for n, one in enumerate(found):
            prompt = template.format(**one)
            if "choices" in one:
                told.append({**one, **chosen(model, prompt, one["choices"])})
            else:
                said = "".join(p.text for p in model.generate(prompt, tokens=tokens)).strip().split("\n")[0]
                told.append({**one, "said": said})
            if (n + 1) % 10 == 0:
                print(f"{n + 1} of {len(found)}", flush=True)
    with open(outputs["answers"], "w", encoding="utf-8") as f:
        f.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in told)
    lab.log_table("answers", told[:200])
    return measures(told)


def chosen(model: Any, prompt: str, choices: list[str]) -> dict[str, Any]:
    """The likeliest choice after the prompt, and the likeliest per byte of it; ties go to the first."""
    sums = []
    for choice in choices:
        start, whole = len(model.tokenize(prompt)), model.score(prompt + choice)
        sums.append(math.fsum(whole.logprobs[max(start - 1, 0) :]))
    per_byte = [s / max(len(c.encode()), 1) for s, c in zip(sums, choices, strict=True)]
    best, best_per_byte = (max(range(len(v)), key=lambda n: v[n]) for v in (sums, per_byte))
    return {"said": best, "said_per_byte": best_per_byte, "logprobs": sums}


def measures(told: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of all answers. Pure."""
    out: dict[str, float] = {"questions": float(len(told))}
    if picked := [t for t in told if "choices" in t]:
        truth = [t["answer"] for t in picked]
        out["accuracy"] = scores.accuracy(truth, [t["said"] for t in picked])
        out["accuracy_per_byte"] = scores.accuracy(truth, [t["said_per_byte"] for t in picked])
        out["f1"] = scores.f1(truth, [t["said"] for t in picked])
    if written := [t for t in told if "choices" not in t]:
        truth, said = [str(t["answer"]) for t in written], [str(t["said"]) for t in written]
        out |= {"exact_match": scores.exact_match(truth, said), "bleu": scores.bleu(truth, said)}
        out["rouge_l"] = scores.rouge(truth, said)
    return out


def questions(place: Path, limit: int) -> list[dict[str, Any]]:
    """The questions of `test.jsonl`, else of every JSON-lines file, in order."""
    files = [place / "test.jsonl"] if (place / "test.jsonl").exists() else sorted(place.glob("*.jsonl"))
    found = [json.loads(line) for f in files for line in f.read_text(encoding="utf-8").splitlines() if line.strip()]
    return found[:limit] if limit else found
