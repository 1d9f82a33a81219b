"""What `lab sweep` prints."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from lab.app import sweep_results as results
from lab.app.lab import Lab
from lab.core.problem import problem
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
    name = found["sweep"]
    then = f"`lab sweep promote {name}` puts it into the experiment" if best else f"`lab sweep plot {name}` draws it"
    lines.append(f"See `lab sweep show {name}` and `lab sweep importance {name}`; {then}.")
    return "\n".join(lines)


def params(values: Any) -> str:
    """`lr=0.001 width=64`."""
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())


def show_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep show NAME`: the table; on a terminal it follows a living sweep with `--follow`."""
    while True:
        found = results.show(lab, _name(args))
        if args.json:
            print(json.dumps(results.to_json(found), indent=1, default=str))
            return 0
        text = render(found)
        if not args.follow:
            print(text)
            return 0
        print(f"\033[H\033[J{text}" if sys.stdout.isatty() else text, flush=True)
        if not found.coordinator:
            return 0
        time.sleep(1)


def list_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep list`: every study."""
    found = results.studies(lab)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in found:
        state = "running" if one["running"] else "in force" if one["in force"] else "kept"
        print(f"  {one['study']:<32} {state:<9} experiment {one['experiment']}, {one['trials'] or 'all'} trials")
    if not found:
        print("No sweep was begun yet. Begin one: `lab sweep EXPERIMENT 'lr=tag(log,interval(1e-5,1e-2))' --trials 20`")
    return 0


def importance_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep importance NAME`: which parameter matters, and which way."""
    found = results.importance(lab, _name(args), args.by)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for metric, weights in found["importance"].items():
        print(f"{metric}: importance ({args.by}) and rank correlation")
        for name, weight in weights.items():
            way = found["correlation"].get(metric, {}).get(name)
            shown = f"{way:+.2f}" if way is not None else ""
            print(f"  {name:<24} {weight:6.3f} {'█' * round(30 * weight):<30} {shown}".rstrip())
    return 0


def csv_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep csv NAME`: every trial."""
    text = results.table(results.show(lab, _name(args)))
    if args.out:
        Path(args.out).write_text(text, encoding="utf-8")
        print(f"Written to {args.out}.")
    else:
        print(text, end="")
    return 0


def pareto_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep pareto NAME`: the trials no other betters."""
    found = results.show(lab, _name(args))
    if args.json:
        print(json.dumps(results.to_json(found)["best"], indent=1))
        return 0
    for t in found.best:
        values = ", ".join(f"{n} {v:.6g}" for n, v in zip(found.objective, t.values, strict=True))
        print(f"  trial {t.number:<5} {values}   {params(t.params)}")
    return 0


def plot_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep plot NAME`: a page of pictures, and PNG files."""
    made = results.plot(lab, _name(args), Path(args.out) if args.out else None)
    print("\n".join(str(p) for p in made))
    if len(made) == 1:
        print("For PNG files: pip install matplotlib")
    return 0


def promote_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep promote NAME`: the best parameters into the experiment's YAML."""
    from lab.app.lab import Lab as Opened
    from lab.app.plan import plan
    from lab.app.sweep_promote import promote

    before = {c.address: (c.action, c.reason) for c in plan(lab).changes} if not args.branch else {}
    found = promote(lab, _name(args), number=args.trial, branch=args.branch or "")
    if not found.diff:
        print(f"{found.file} has these parameters already.")
        return 0
    print(found.diff, end="" if found.diff.endswith("\n") else "\n")
    print(found.message)
    if found.branch:
        print(f"\nCommitted on {found.branch}; the working tree is as it was. See `git show {found.branch}`.")
        return 0
    after = plan(Opened(lab.root, lab.overrides))
    todo = [c for c in after.changes if before.get(c.address) != (c.action, c.reason)]
    if todo:
        print("\nWhat `lab plan` says of it:")
        print("\n".join(f"  {c.action} {c.address}: {c.reason}" for c in todo))
    return 0


def stop_(lab: Lab, args: argparse.Namespace) -> int:
    """`lab sweep stop NAME`: coordinator and trials end; the study can go on later."""
    holder, ended = results.stop(lab, _name(args))
    print(f"{holder or 'Nobody coordinated it'}; {ended} living trials were ended. The same sweep again goes on.")
    return 0


def render(found: Any) -> str:
    """A sweep as it stands: counts, best, rate, time left, the last trials."""
    counts = ", ".join(f"{n} {s}" for s, n in found.counts.items()) or "no trial has ended"
    head = f"{found.study} · experiment {found.experiment} · {counts} of {found.asked or 'all'}"
    lines = [head]
    if found.coordinator:
        left = f", about {duration(found.left)} left" if found.left else ""
        rate = f", {found.rate * 60:.3g} trials a minute" if found.rate else ""
        lines.append(f"carried on by {found.coordinator}{rate}{left}")
    elif found.why:
        lines.append(f"ended: {found.why}")
    else:
        lines.append(f"nobody carries it on; `lab sweep {found.name}` does")
    for t in found.best[:10]:
        values = ", ".join(f"{n} {v:.6g}" for n, v in zip(found.objective, t.values, strict=True))
        lines.append(f"best   {values}   trial {t.number}   {params(t.params)}")
    rows = [
        (t.number, t.state, _values(t, found.objective), params(t.params), t.notes.get("reason", ""))
        for t in found.ended
    ]
    rows += [(o["number"], o["state"], _living(o, found.objective), params(o["params"]), "") for o in found.living]
    for number, state, values, given, reason in sorted(rows, key=lambda r: r[0])[-20:]:
        lines.append(
            f"  {number:>4} {state:<11} {values:<24} {given}{'   ' + reason.splitlines()[-1][:60] if reason else ''}"
        )
    return "\n".join(lines)


def _values(t: Any, objective: Any) -> str:
    if t.state == "pruned" and t.points:
        step = max(t.points)
        return f"{t.points[step]:.6g} at step {step}"
    return " ".join(f"{v:.6g}" for v in t.values)


def _living(one: Any, objective: Any) -> str:
    known = [f"{one['values'][m]:.6g}" for m in objective if m in one["values"]]
    return f"{' '.join(known)} at step {one['step']}" if known else ""


def _name(args: argparse.Namespace) -> str:
    if not args.words:
        raise problem(f"which sweep? `lab sweep {args.target} NAME`", do="see `lab sweep list`")
    return str(args.words[0])
