"""Scores: the usual measures of answers, by their published formulas and nothing but the standard library.

Held against scikit-learn, sacreBLEU and rouge-score in `tests/experiments/test_evaluation.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

_PUNCTUATION = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""mteval's tokenization of international text, version 13a."""


def accuracy(truth: Sequence[Hashable], said: Sequence[Hashable]) -> float:
    """The share of equal answers."""
    _paired(truth, said)
    return sum(a == b for a, b in zip(truth, said, strict=True)) / len(truth)


def precision_recall_f1(
    truth: Sequence[Hashable], said: Sequence[Hashable], positive: Hashable | None = None
) -> tuple[float, float, float]:
    """Of the class `positive`; without one, the mean over all classes (macro). 0 where a class is never met."""
    _paired(truth, said)
    classes = [positive] if positive is not None else sorted({*truth, *said}, key=repr)
    each = []
    for one in classes:
        both = sum(a == b == one for a, b in zip(truth, said, strict=True))
        precision = both / n if (n := sum(b == one for b in said)) else 0.0
        recall = both / n if (n := sum(a == one for a in truth)) else 0.0
        each.append((precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0))
    return tuple(sum(column) / len(each) for column in zip(*each, strict=True))


def f1(truth: Sequence[Hashable], said: Sequence[Hashable], positive: Hashable | None = None) -> float:
    """The harmonic mean of precision and recall; see `precision_recall_f1`."""
    return precision_recall_f1(truth, said, positive)[2]


def auc(truth: Sequence[bool | int], score: Sequence[float]) -> float:
    """The area under the ROC curve: how often a true one is scored above a false one, ties half. NaN with one class."""
    _paired(truth, score)
    order = sorted(range(len(score)), key=lambda n: score[n])
    rank_sum, at = 0.0, 0
    while at < len(order):
        end = at
        while end < len(order) and score[order[end]] == score[order[at]]:
            end += 1
        rank_sum += sum((at + 1 + end) / 2 for n in order[at:end] if truth[n])
        at = end
    positives = sum(map(bool, truth))
    negatives = len(truth) - positives
    if not positives or not negatives:
        return math.nan
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def exact_match(truth: Sequence[str], said: Sequence[str]) -> float:
    """The share of answers that are equal but for case, punctuation and white space."""
    plain = [[" ".join(re.findall(r"\w+", t.lower())) for t in side] for side in (truth, said)]
    return accuracy(*plain)


def bleu(truth: Sequence[str], said: Sequence[str]) -> float:
    """Corpus BLEU-4 from 0 to 100, one reference each, 13a tokens, exponential smoothing: sacreBLEU's default."""
    _paired(truth, said)
    hits, totals, lengths = [0] * 4, [0] * 4, [0, 0]
    for reference, answer in zip(truth, said, strict=True):
        r, a = _words(reference), _words(answer)
        lengths = [lengths[0] + len(r), lengths[1] + len(a)]
        for n in range(4):
            theirs, ours = _grams(r, n + 1), _grams(a, n + 1)
            hits[n] += sum(min(c, theirs[g]) for g, c in ours.items())
            totals[n] += max(len(a) - n, 0)
    if not lengths[1] or not any(hits):
        return 0.0
    logs, smooth = 0.0, 1.0
    for hit, total in zip(hits, totals, strict=True):
        if not total:
            return 0.0
        if not hit:
            smooth *= 2
        logs += math.log((hit or 1 / smooth) / total)
    brevity = 1.0 if lengths[1] >= lengths[0] else math.exp(1 - lengths[0] / lengths[1])
    return 100 * brevity * math.exp(logs / 4)


def rouge(truth: Sequence[str], said: Sequence[str], kind: str = "L") -> float:
    """The mean F-measure of ROUGE-1, -2, … or -L (longest common sequence of words), without stemming."""
    _paired(truth, said)
    scores = []
    for reference, answer in zip(truth, said, strict=True):
        r, a = (re.findall(r"[a-z0-9]+", t.lower()) for t in (reference, answer))
        if kind == "L":
            same, of_r, of_a = _longest(r, a), len(r), len(a)
        else:
            theirs, ours = _grams(r, int(kind)), _grams(a, int(kind))
            same, of_r, of_a = sum((theirs & ours).values()), sum(theirs.values()), sum(ours.values())
        scores.append(2 * same / (of_r + of_a) if same else 0.0)
    return sum(scores) / len(scores)


def _paired(truth: Sequence[object], said: Sequence[object]) -> None:
    if len(truth) != len(said) or not truth:
        raise ValueError(
            f"{len(truth)} truths and {len(said)} answers cannot be scored: there must be as many, and some"
        )


def _words(text: str) -> list[str]:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for escaped, plain in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(escaped, plain)
    text = f" {text} "
    for pattern, spaced in _PUNCTUATION:
        text = pattern.sub(spaced, text)
    return text.split()


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _longest(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        left = 0
        for n, other in enumerate(b, 1):
            left, row[n] = row[n], left + 1 if word == other else max(row[n], row[n - 1])
    return row[-1]
