"""reproduce: makes a run again from exactly what made it, and compares every metric.

lab reproduce RUN                 in a clean checkout of its commit, with its patch
lab reproduce --all --sample 20   the share of runs that come out equal
"""

from __future__ import annotations

import argparse
import json

from lab.app.lab import Lab
from lab.app.reproduce import Reproduced, reproduce, reproduce_all
from lab.cli import _arguments
from lab.core.problem import problem
from lab.runs.compare import cell


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab reproduce`."""
    parser.add_argument("run", nargs="?", help="a run, or an experiment for its newest")
    parser.add_argument("--all", action="store_true", help="every finished run")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="with --all: so many of them")
    parser.add_argument(
        "--at-least", type=float, default=0.95, metavar="SHARE", help="with --all: what is enough (0.95)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the checkout")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Reproduces, and prints each metric; 0 where all agree."""
    if bool(args.run) == args.all:
        raise problem("name one run, or say --all")
    if args.run:
        found = reproduce(lab, args.run, keep=args.keep)
        print(json.dumps(_json(found), indent=1) if args.json else text(found))
        return 0 if found.equal else 1
    every = reproduce_all(lab, args.sample)
    done = [r for r in every if isinstance(r, Reproduced)]
    for one in every:
        print(text(one) if isinstance(one, Reproduced) else f"✗ {one}")
    metrics = [m for r in done for m in r.metrics]
    equal = sum(r.equal for r in done)
    share = equal / len(every) if every else 1.0
    print(
        f"{equal} of {len(every)} runs equal ({share:.1%}); {sum(m.equal for m in metrics)} of {len(metrics)} metrics."
    )
    return 0 if share >= args.at_least else 1


def text(found: Reproduced) -> str:
    """One run and its rerun. Pure."""
    lines = [f"{'✓' if found.equal else '✗'} {found.run} again as {found.again}"]
    for m in found.metrics:
        word = (
            "equal"
            if m.equal and m.difference == 0
            else f"differs by {m.difference:.2g}"
            + (f", within {m.tolerance:g}" if m.equal else f", more than {m.tolerance:g}")
        )
        lines.append(f"    {m.name}: {cell(m.before)} → {cell(m.after)}  {word}")
    lines += [f"    note: {n}" for n in found.notes]
    return "\n".join(lines)


def _json(found: Reproduced) -> dict[str, object]:
    metrics = [
        {"name": m.name, "before": m.before, "after": m.after, "tolerance": m.tolerance, "equal": m.equal}
        for m in found.metrics
    ]
    return {"run": found.run, "again": found.again, "equal": found.equal, "metrics": metrics, "notes": found.notes}
