"""frameworks: which LLM frameworks are installed here, and whether they really work."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lab.app import frameworks
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.frameworks import KNOWN


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab frameworks`."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    one = verbs.add_parser("test", help="run the smoke test of each, and print a matrix")
    one.add_argument("names", nargs="*", metavar="NAME", help="these only; all by default")
    one.add_argument("--all", action="store_true", help="all (the default)")
    one.add_argument(
        "--model", default="", metavar="ADDRESS", help="serve that one, and let agents and clients talk to it"
    )
    one.add_argument("--page", metavar="FILE", help="write the matrix there as Markdown too")
    _arguments.as_json(one)
    _arguments.as_json(
        verbs.add_parser("list", help="declared, and found in envs, as programs, or in Lab's own Python")
    )


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the matrix; exit code 1 where something does not work."""
    if args.what == "list":
        places = frameworks.listing(lab)
        if args.json:
            print(json.dumps([{"name": p.name, "where": p.where, "found": p.identity} for p in places], indent=1))
            return 0
        for p in places:
            print(f"  {p.name:<28}  {p.where:<16}  {p.identity or 'not installed'}")
        missing = [k.name for k in KNOWN.values() if k.name not in {p.step.framework for p in places}]
        print(f"Known and not here: {', '.join(missing)}." if missing else "Every framework Lab knows is here.")
        return 0
    results = frameworks.test(lab, args.names, args.model)
    if args.page:
        Path(args.page).write_text(frameworks.page(lab, results))
    if args.json:
        print(json.dumps([asdict(r) for r in results], indent=1, ensure_ascii=False))
    else:
        width = max((len(r.framework) for r in results), default=0)
        for r in results:
            mark, tail = ("✓", ", ".join(r.tested)) if r.works else ("✗", f"step `{r.step}`: {r.why}")
            found = f"{r.version:<10} {r.device:<6} {r.where:<14}"
            print(f"  {mark} {r.framework:<{width}}  {found} {tail}  ({r.seconds:.1f} s)")
    return 0 if all(r.works for r in results) else 1
