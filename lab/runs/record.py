"""Record: a run as a page a person keeps: goal, set-up, inputs, results with plots; the conclusion is theirs."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lab.core.units import duration, size
from lab.runs.compare import cell
from lab.runs.folder import RunFolder, put
from lab.runs.listing import series
from lab.runs.plot import curves

MARK = "## Conclusion"
"""What follows it is the author's; writing the record again keeps it."""


def write(folder: RunFolder, where: Path, goal: str = "") -> Path:
    """The record is in `where/RUN.md` with its plots beside it; a conclusion already written there is kept."""
    where.mkdir(parents=True, exist_ok=True)
    path = where / f"{folder.id}.md"
    plots = []
    for name, points in series(folder).items():
        if len(points) > 1 and (drawn := curves(name, {name: points})):
            file = f"{folder.id}-{name.replace('/', '_')}.svg"
            put(where / file, drawn + "\n")
            plots.append((name, file))
    conclusion = "\n\n*Not written yet.*\n"
    if path.exists():
        _, found, kept = path.read_text(encoding="utf-8").partition(MARK)
        conclusion = kept if found else conclusion
    put(path, page(folder, goal, plots) + MARK + conclusion)
    return path


def page(folder: RunFolder, goal: str, plots: list[tuple[str, str]]) -> str:
    """Everything but the conclusion. Reads."""
    spec, inputs, result = folder.spec, folder.read("inputs.json"), folder.result
    git = inputs.get("git") or {}
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(float(result.get("started") or spec.get("at") or 0)))
    what = spec.get("call") or " ".join(spec.get("argv", ()))
    code = git.get("commit", "none")
    if git.get("dirty"):
        code += " with changes that are not committed (`patch.diff` in the run's folder)"
    lines = [
        f"# {spec.get('name')}: {folder.id}",
        "",
        goal or "*No goal was declared.*",
        "",
        "## Set-up",
        "",
        f"- run: `{what}`",
        f"- when: {began}, {duration(float(result.get('seconds', 0)))} on {inputs.get('host')} by {inputs.get('user')}",
        f"- python {inputs.get('python')} on {inputs.get('platform')}",
        f"- code: {code}" + (f" ({git['missing']})" if git.get("missing") else ""),
        f"- seed: {spec.get('seed')}",
        "",
        "```json",
        json.dumps(spec.get("params") or {}, indent=1, sort_keys=True),
        "```",
        "",
        "## Inputs",
        "",
        "| input | digest |",
        "| --- | --- |",
        f"| experiment | `{spec.get('digest') or 'not declared'}` |",
    ]
    for kind in ("env", "models", "datasets"):
        for name, one in (inputs.get(kind) or {}).items():
            lines.append(f"| {kind} {name} ({one.get('address', '')}) | `{one.get('digest', '')}` |")
    lines += [f"| code `{path}` | `{sha}` |" for path, sha in (inputs.get("code") or {}).items()]
    lines += [
        "",
        "## Results",
        "",
        f"It {result.get('state', 'has not ended')}. {result.get('reason') or ''}".rstrip(),
        "",
    ]
    if result.get("metrics"):
        lines += ["| metric | last value |", "| --- | --- |"]
        lines += [f"| {n} | {cell(v)} |" for n, v in sorted(result["metrics"].items())]
        lines.append("")
    for name, one in (result.get("outputs") or {}).items():
        lines.append(f"- output `{name}`: {size(one['bytes'])}, sha256 `{one['sha256']}`")
    lines += ["", *(f"![{name}]({file})" for name, file in plots), ""]
    return "\n".join(lines)
