"""What `lab sweep` prints."""

from __future__ import annotations

from typing import Any

from lab.core.units import duration


def ended(found: Any) -> str:
    """How a sweep ended, in a few lines."""
    counts = [f"{found[s]} {s}" for s in ("complete", "pruned", "failed", "infeasible") if found[s]]
    why = found["ended"] if found["ended"] != "finished" else ""
    lines = [f"{found['study']}: {', '.join(counts) or 'no trial'}{f'; it ended because {why}' if why else ''}."]
    if found["trial_seconds"]:
        lines[0] += f" A trial took {duration(found['trial_seconds'])}."
    if best := found["best"]:
        values = ", ".join(f"{n} {v:.6g}" for n, v in best["values"].items())
        lines.append(f"best    {values}   trial {best['number']}   {params(best['params'])}")
    for one in found["front"][:10]:
        values = ", ".join(f"{n} {v:.6g}" for n, v in one["values"].items())
        lines.append(f"front   {values}   trial {one['number']}   {params(one['params'])}")
    return "\n".join(lines)


def params(values: Any) -> str:
    """`lr=0.001 width=64`."""
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
