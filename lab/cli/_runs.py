"""Runs as text. Rendering only."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab.core.units import duration
from lab.runs.compare import cell
from lab.runs.listing import Line

MARKS = {"finished": "✓", "running": "▸", "queued": "·", "paused": "‖", "unsupervised": "▸"}


def ended(one: Line) -> str:
    """How a run stands, with its metrics and what to do next. Pure but for reading its result."""
    reason = str(one.folder.result.get("reason") or "")
    head = f"{MARKS.get(one.state, '✗')} {one.id} {_said(one.state)} after {duration(one.seconds)}"
    lines = [head + (f": {reason}" if reason else "")]
    lines += [f"    {n} = {cell(v)}" for n, v in sorted(one.metrics.items())][:20]
    if one.state in ("interrupted", "stopped", "killed", "failed", "timed out", "out of memory"):
        lines.append(f"See `lab logs {one.id}`, or go on with `lab resume {one.id}`.")
    return "\n".join(lines)


def _said(state: str) -> str:
    return {"failed": "failed", "finished": "finished", "running": "runs"}.get(state, f"is {state}")


def table(lines: Sequence[Line], columns: Sequence[str] = ()) -> str:
    """Runs in a line each. Pure."""
    if not lines:
        return "No runs. Start one with `lab run EXPERIMENT`."
    rows = [("", "run", "state", "started", "time", *(columns or ("metrics",)))]
    for one in lines:
        began = time.strftime("%m-%d %H:%M:%S", time.localtime(one.started)) if one.started else "–"
        if columns:
            last = [cell(one.value(c)) for c in columns]
        else:
            last = [" ".join(f"{n}={cell(v)}" for n, v in sorted(one.metrics.items())[:4])]
        rows.append((MARKS.get(one.state, "✗"), one.id, one.state, began, duration(one.seconds), *last))
    widths = [max(len(str(r[n])) for r in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(str(c).ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def details(one: Line) -> str:
    """Everything of one run. Reads its inputs."""
    spec, inputs = one.folder.spec, one.folder.read("inputs.json")
    git = inputs.get("git") or {}
    lines = [ended(one), ""]
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.started))
    result = one.folder.result
    finished = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(result["ended"]))) if result else "–"
    facts = {
        "experiment": one.experiment,
        "start": started,
        "end": finished,
        "user": inputs.get("user", ""),
        "host": inputs.get("host", ""),
        "code": f"{git.get('commit', 'none')[:12]} {git.get('branch', '')}" + (" +changes" if git.get("dirty") else ""),
        "not recorded": git.get("missing", ""),
        "interpreter": (inputs.get("interpreter") or {}).get("path", ""),
        "digest": spec.get("digest", ""),
        "seed": spec.get("seed"),
        "attempts": result.get("attempts", ""),
        "folder": str(one.folder.path),
    }
    for kind in ("env", "models", "datasets"):
        for name, given in (inputs.get(kind) or {}).items():
            facts[f"{kind}.{name}"] = f"{given.get('digest', '')}  {given.get('path', '')}"
    facts |= {f"params.{k}": v for k, v in one.params.items()}
    facts |= {f"tags.{k}": v for k, v in one.tags.items()}
    facts |= {f"output.{n}": f"{o['sha256']}  {o['path']}" for n, o in (result.get("outputs") or {}).items()}
    width = max(len(k) for k in facts)
    lines += [f"  {k:<{width}}  {v}" for k, v in facts.items() if v not in ("", None)]
    return "\n".join(lines)
