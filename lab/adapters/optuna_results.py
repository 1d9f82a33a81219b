"""What Optuna says of a study: its trials, the importance of parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from lab.adapters.optuna_storage import open_storage, problem_types, quiet, shown
from lab.adapters.optuna_study import ended
from lab.adapters.secrets import resolve
from lab.core.problem import Problems, problem
from lab.core.space import taken
from lab.runs.folder import RunFolder
from lab.runs.sweep_ports import Ended

EVALUATORS = {"ped_anova": "PedAnovaImportanceEvaluator", "fanova": "FanovaImportanceEvaluator"}


def load(folder: RunFolder) -> Any:
    """The study of a sweep's folder, for reading; raises Problems where its storage cannot be reached."""
    optuna, step = quiet(), folder.read("step.json")
    where = str(step.get("storage") or "")
    if where.partition(":")[0] in ("env", "file", "keychain", "command"):
        where = resolve(where)
    try:
        return optuna.load_study(study_name=folder.id, storage=open_storage(where, folder.path))
    except KeyError:
        raise problem(f"{folder.id} is not in its storage", why=shown(where) or "its journal is gone") from None
    except problem_types() as e:
        if isinstance(e, Problems):
            raise
        raise problem(f"the storage of {folder.id} does not answer", why=str(e).splitlines()[0][:200]) from None


def trials(study: Any) -> tuple[list[Ended], list[tuple[int, Mapping[str, Any]]]]:
    """Trials that have ended, and numbers and parameters of those that have not."""
    every = study.get_trials(deepcopy=False)
    done = [ended(t) for t in every if t.state.is_finished()]
    return done, [(t.number, {n: taken(v) for n, v in t.params.items()}) for t in every if not t.state.is_finished()]


def importance(study: Any, metrics: Sequence[str], how: str = "ped_anova") -> dict[str, dict[str, float]]:
    """Metric → parameter → share of its variance it explains, largest first; raises Problems for too few trials."""
    optuna = quiet()
    try:
        evaluator = getattr(optuna.importance, EVALUATORS[how])()
    except ImportError:
        raise problem("fANOVA needs scikit-learn, which is not installed", do="pip install scikit-learn") from None
    out = {}
    for n, metric in enumerate(metrics):
        target = None if len(metrics) == 1 else (lambda t, n=n: t.values[n])
        try:
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
        except (ValueError, RuntimeError) as e:
            raise problem(
                f"the importance for {metric} cannot be told", why=str(e).splitlines()[0], do="run more trials first"
            ) from None
        out[metric] = {str(k): float(v) for k, v in found.items()}
    return out


def correlation(done: Sequence[Ended], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Metric → parameter → Spearman's rank correlation over complete trials; parameters of text are left out."""
    complete = [t for t in done if t.state == "complete" and t.values]
    names = list(dict.fromkeys(n for t in complete for n in t.params))
    out: dict[str, dict[str, float]] = {}
    for at, metric in enumerate(metrics):
        out[metric] = {}
        for name in names:
            pairs = [(t.params[name], t.values[at]) for t in complete if name in t.params]
            if len(pairs) < 3 or not all(isinstance(x, (int, float)) for x, _ in pairs):
                continue
            with contextlib.suppress(ZeroDivisionError):
                out[metric][name] = _pearson(_ranks([float(x) for x, _ in pairs]), _ranks([y for _, y in pairs]))
    return out


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    out = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for i in order[at : end + 1]:
            out[i] = (at + end) / 2
        at = end + 1
    return out


def _pearson(a: Sequence[float], b: Sequence[float]) -> float:
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    below: float = (sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b)) ** 0.5
    return top / below
