"""sweep: searches an experiment's parameters, by a declared sweep or by overrides.

    lab sweep lr                                              the declared sweep `lr`, or what is left of it
    lab sweep train 'lr=tag(log,interval(1e-5,1e-2))' 'batch=8,16,32' --trials 40 --parallel 2
    lab sweep show lr       · list · importance lr · plot lr · csv lr · pareto lr · promote lr · stop lr

The space is Hydra's sweep grammar: a,b,c · choice(a,b) · range(1,5) (ends before 5) · interval(0,1) (a float) ·
int(interval(1,8)) · tag(log,interval(1e-5,1e-2)). The same sweep again goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from lab.app import sweep as app
from lab.app.lab import Lab
from lab.core.problem import problem

VERBS = ("show", "list", "importance", "plot", "csv", "pareto", "promote", "stop")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab sweep`; flags may stand between the words."""
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    parser.add_argument("target", help=f"a sweep or an experiment; or one of {', '.join(VERBS)}, then a sweep")
    parser.add_argument("words", nargs="*", metavar="OVERRIDE", help="what is searched, and what is fixed")
    parser.add_argument("--trials", type=_positive, metavar="N", help="how many trials shall have ended")
    parser.add_argument("--priority", type=int, metavar="N", help="its trials' place among what waits for room")
    parser.add_argument("--parallel", type=_positive, metavar="N", help="how many run at once")
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="tpe, grid, brute_force, random, qmc, gp, cma_es, nsga2, nsga3; '{name: tpe, n_startup_trials: 5}'",
    )
    parser.add_argument(
        "--pruner",
        metavar="NAME",
        help="median, hyperband, asha, …; '{name: percentile, percentile: 25.0}', patient, threshold",
    )
    parser.add_argument("--minimize", action="append", default=[], metavar="METRIC", help="a metric to make small")
    parser.add_argument("--maximize", action="append", default=[], metavar="METRIC", help="a metric to make large")
    parser.add_argument("--seed", type=int, metavar="N", help="where the sampler starts")
    parser.add_argument("--timeout", metavar="TIME", help="90m, 12h: no trial begins after that")
    parser.add_argument(
        "--storage", metavar="URL", help="sqlite, postgresql://…, grpc://HOST:PORT; else a journal file"
    )
    parser.add_argument("--executor", metavar="NAME", help="local, dask or ray")
    parser.add_argument("--reuse", action="store_true", default=None, help="take finished runs of the same point")
    parser.add_argument("--name", metavar="NAME", help="the name of a sweep made of overrides")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", metavar="PATH", help="where plots or the table go")
    parser.add_argument("--follow", "-f", action="store_true", help="show: until it ends")
    parser.add_argument("--by", choices=("ped_anova", "fanova"), default="ped_anova", help="importance: how")
    parser.add_argument("--trial", type=int, metavar="N", help="promote: this trial instead of the best")
    parser.add_argument("--branch", metavar="NAME", help="promote: commit on this branch instead of the working tree")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Carries the sweep out, or shows what was asked of it."""
    if args.target in VERBS:
        from lab.cli import _sweeps

        return int(getattr(_sweeps, f"{args.target}_")(lab, args))
    found = app.sweep(lab, args.target, args.words, _fields(args))
    if args.json:
        print(json.dumps(found, indent=1, default=str))
    else:
        from lab.cli._sweeps import ended

        print(ended(found))
    return 0


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    objective = {**dict.fromkeys(args.minimize, "min"), **dict.fromkeys(args.maximize, "max")}
    if len(objective) < len(args.minimize) + len(args.maximize):
        raise problem("a metric is given twice", do="say each metric once, with --minimize or --maximize")
    names = (
        "trials",
        "parallel",
        "priority",
        "sampler",
        "pruner",
        "seed",
        "timeout",
        "storage",
        "executor",
        "reuse",
        "name",
    )
    found = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    return found | ({"objective": objective} if objective else {})


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return int(text)
