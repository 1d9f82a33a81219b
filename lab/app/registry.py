"""registry: the models that runs registered, and a card of each version: what it is and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters import headers, mlflow_local
from lab.adapters import registry as adapter
from lab.adapters.mlflow_local import flat
from lab.app.lab import Lab
from lab.core.problem import Problems, did_you_mean, problem
from lab.core.units import moment, size
from lab.runs.compare import cell
from lab.runs.folder import RunFolder
from lab.runs.run import runs


@dataclass(frozen=True)
class Card:
    """One version of a registered model."""

    name: str
    version: int
    aliases: list[str]
    stage: str
    approved: str
    sha256: str
    bytes: int
    at: float
    run: str
    """The run that made it; its folder has all of it."""
    commit: str
    """Of the code."""
    goal: str
    params: dict[str, Any]
    """The run's parameters, nested ones by dotted names."""
    metrics: dict[str, float]
    """The run's own."""
    evaluations: dict[str, dict[str, float]]
    """Run → its metrics: what was given exactly these files, newest first."""
    made_from: dict[str, str]
    model: dict[str, Any]
    """What its files' headers say: format, architecture, number of parameters; empty where they are no model's."""


def versions(lab: Lab, name: str = "") -> list[dict[str, Any]]:
    """Every registered version, newest first; of one model or of all. Reads."""
    return adapter.versions(mlflow_local.database(lab.state), name)


def card(lab: Lab, name: str) -> Card:
    """The card of `NAME`, its newest version, `NAME@VERSION` or `NAME@ALIAS`. Reads."""
    base, _, wanted = name.partition("@")
    found = versions(lab, base)
    if not found:
        known = list(dict.fromkeys(v["name"] for v in versions(lab)))
        do = "see `lab registry`" if known else "declare `register: {name: NAME}` in an experiment, and apply"
        raise problem(f"no registered model is called {base}{did_you_mean(base, known)}", do=do)
    one = next((v for v in found if not wanted or wanted == str(v["version"]) or wanted in v["aliases"]), None)
    if one is None:
        told = ", ".join(str(v["version"]) for v in found)
        raise problem(f"{base} has no version or alias {wanted}", do=f"its versions are {told}")
    run = RunFolder(lab.state / "runs" / one["run"])
    output: dict[str, Any] = next(
        (o for o in (run.result.get("outputs") or {}).values() if o["sha256"] == one["sha256"]), {}
    )
    return Card(
        **{n: one[n] for n in ("name", "version", "aliases", "stage", "approved", "sha256", "bytes", "at", "run")},
        commit=str((run.read("inputs.json").get("git") or {}).get("commit", "")),
        goal=str(run.spec.get("goal", "")),
        params=flat(run.spec.get("params") or {}) | {"seed": run.spec.get("seed")},
        metrics=one["metrics"],
        evaluations=_evaluations(lab, output),
        made_from=one["made_from"],
        model=_headers(Path(str(output.get("path", "")))) if output else {},
    )


def _evaluations(lab: Lab, output: dict[str, Any]) -> dict[str, dict[str, float]]:
    files = set((output.get("hashes") or {"": output.get("sha256", "")}).values())
    found = []
    for run in runs(lab.state):
        given = (run.read("inputs.json").get("models") or {}).values()
        if (
            files
            and run.result.get("state") == "finished"
            and any(files <= set((m.get("content") or {}).values()) for m in given)
        ):
            found.append(run)
    found.sort(key=lambda r: float(r.result["ended"]), reverse=True)
    return {r.id: r.result["metrics"] for r in found}


def _headers(path: Path) -> dict[str, Any]:
    files = {p.name: p for p in (path.iterdir() if path.is_dir() else [path]) if p.is_file()}
    try:
        return dict(headers.facts(files))
    except (Problems, OSError, ValueError):
        return {}


def markdown(c: Card) -> str:
    """The card as a Markdown page. Pure."""
    title = f"# {c.name}, version {c.version}"
    facts = [
        ("stage", c.stage + f", approved by {c.approved}" * bool(c.approved)),
        ("aliases", ", ".join(a for a in c.aliases if a != c.stage)),
        ("run", f"{c.run}, {moment(c.at, '%Y-%m-%d %H:%M')}"),
        ("code", c.commit),
        ("size", size(c.bytes)),
        ("sha256", c.sha256),
        *((n.replace("params", "parameters"), c.model.get(n)) for n in ("format", "architecture", "params", "context")),
        *((k, v) for k, v in sorted(c.made_from.items())),
    ]
    lines = [title, "", *([c.goal, ""] if c.goal else []), *(f"- {k}: {v}" for k, v in facts if v)]
    tables = [("Parameters", {k: str(v) for k, v in c.params.items()})]
    tables += [("Metrics", {k: cell(v) for k, v in c.metrics.items()})]
    tables += [(f"Evaluated by {r}", {k: cell(v) for k, v in m.items()}) for r, m in c.evaluations.items()]
    for head, rows in tables:
        if rows:
            lines += ["", f"## {head}", "", "| name | value |", "| --- | --- |"]
            lines += [f"| {k} | {v} |" for k, v in sorted(rows.items())]
    return "\n".join(lines)
