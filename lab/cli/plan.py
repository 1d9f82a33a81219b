"""plan: shows what would change, why, and what it would cost.

Nothing is written but the cache and `--out FILE`. Exit code 0, or 1 where a problem stops the plan; with
`--detailed-exitcode` also 2 where there are changes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.app.lab import Lab
from lab.app.plan import against, plan, save
from lab.cli import _arguments
from lab.plan import markdown, text


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab plan`."""
    _arguments.overrides(parser)
    _arguments.selection(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the plan as JSON (docs/plan-schema.json)")
    form.add_argument("--markdown", action="store_true", help="print it as Markdown, for a pull request")
    parser.add_argument("--out", type=Path, metavar="FILE", help="save it, for `lab apply FILE`")
    parser.add_argument("--against", metavar="REV", help="compare the declarations with those of a git revision")
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit with 2 where there are changes")
    parser.add_argument("--allow-destroy", action="store_true", help="allow more than 30 %% of the lab to be destroyed")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the plan."""
    if args.against:
        found = against(lab, args.against)
    else:
        found = plan(lab, args.only, args.exclude, allow_destroy=args.allow_destroy)
    if args.out and not found.problems:
        save(found, args.out)
    if args.json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True, ensure_ascii=False))
    elif args.markdown:
        print(markdown.render(found))
    else:
        print(text.render(found, colour=_arguments.colour(), verbose=args.verbose))
        if args.out and not found.problems:
            print(f"Saved to {args.out}. Run `lab apply {args.out}` to do exactly this.")
    if found.problems:
        return 1
    return 2 if args.detailed_exitcode and found.todo else 0
