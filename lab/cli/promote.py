"""promote: takes the versions one stage was applied with over into another's file, as a diff to review.

lab promote test prod                    what differs: revisions, hashes, types, packages, locks
lab promote test prod 'model.*'          of these only
lab promote test prod --pin              also what does not differ yet: shared files then change production no more

Only what is in the first stage as it is declared there, with all that is made from it, is promoted. Nothing is
committed, and nothing is applied.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lab.app.lab import Lab
from lab.app.promote import promote
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab promote`."""
    parser.add_argument("source", metavar="FROM", help="the stage that has them")
    parser.add_argument("target", metavar="TO", help="the stage that shall have them")
    parser.add_argument("words", nargs="*", metavar="GLOB", help="only these; profile=demo goes here too")
    parser.add_argument("--pin", action="store_true", help="write versions that do not differ yet as well")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something would be")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the diff, and what it leaves."""
    given = [w for w in args.words if "=" in w or w.startswith(("~", "+"))]
    only = [w for w in args.words if w not in given]
    lab = lab.again([*lab.overrides, *given])
    done = promote(lab, args.source, args.target, only, pin=args.pin, check=args.check)
    if args.json:
        print(json.dumps(asdict(done), indent=1, ensure_ascii=False))
    elif not done.changed:
        print(f"Nothing to promote. {args.target} has every version of {args.source}.")
    else:
        print(done.diff, end="")
        for lock in done.locks:
            print(f"+++ {lock}")
    if not args.json:
        for words, what in ((done.kept, "no versions, kept as they are"), (done.missing, f"not part of {args.target}")):
            if words:
                print(f"  {what}: {', '.join(map(str, words))}")
        if done.changed and not args.check:
            n = len(done.changed)
            print(
                f"{n} resource{'s' if n != 1 else ''} promoted from {args.source} (generation {done.generation}). "
                f"Review it with `git diff`, commit it, then `lab apply stage={args.target}`."
            )
    return 1 if args.check and done.changed else 0
