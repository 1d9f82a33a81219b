"""history: every apply, with who, when, from which commit, and what it did."""

from __future__ import annotations

import argparse
import json

from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.problem import problem
from lab.core.units import moment
from lab.ledger import generations


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab history`."""
    parser.add_argument("generation", nargs="?", type=int, help="one generation in detail")
    parser.add_argument("-n", type=int, default=20, help="how many (default 20)")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints generations, newest first, or what one of them did."""
    if args.generation is not None:
        one = generations.generation(lab.ledger, args.generation)
        if one is None:
            raise problem(f"there is no generation {args.generation}", do="see `lab history`")
        rows = generations.history(lab.ledger, number=args.generation)
        if args.json:
            print(json.dumps({**one.to_json(), "changes": rows}, indent=1, ensure_ascii=False))
            return 0
        print(_line(one))
        for r in reversed(rows):
            print(f"  {r['action']:<8} {r['address']}  {r['reason']}")
        return 0
    found = generations.generations(lab.ledger, args.n)
    if args.json:
        print(json.dumps([g.to_json() for g in found], indent=1, ensure_ascii=False))
    else:
        print("\n".join(_line(g) for g in found) or "Nothing was applied yet. Run `lab apply`.")
        if found and not args.quiet:
            print("`lab history N` says what one did; `lab rollback N` applies what was declared for it.")
    return 0


def _line(g: generations.Generation) -> str:
    when = moment(g.at, "%Y-%m-%d %H:%M")
    what = ", ".join(f"{n} {a}" for a, n in g.summary.items() if a != "none") or "–"
    commit = f"{g.origin.revision[:7]}{'+' if g.origin.patch else ''}" if g.origin.revision else "no commit"
    profile = f"  profile {g.origin.profile}" if g.origin.profile else ""
    return f"{g.number:>4}  {when}  {g.who}@{g.host}  {commit:<9} {g.verb:<8} {g.outcome:<11} {what}{profile}"
