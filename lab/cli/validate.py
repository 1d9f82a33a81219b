"""validate: tells every mistake in conf/ at once, with its file and line.

Nothing but conf/ is looked at. Exit code 0 where all is sound, 1 where there are problems.
"""

from __future__ import annotations

import argparse
import json

from lab.app.lab import Lab
from lab.app.validate import validate
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab validate`."""
    _arguments.overrides(parser)
    parser.add_argument("--all-profiles", action="store_true", help="check the lab as each profile composes it")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the problems, or that there are none."""
    found = validate(lab, profiles=args.all_profiles)
    if args.json:
        out = {"format": 1, "resources": found.resources, "problems": [p.to_json() for p in found.problems]}
        print(json.dumps(out, indent=1, sort_keys=True, ensure_ascii=False))
        return 1 if found.problems else 0
    for problem in found.problems:
        print(problem)
    if found.problems:
        n = len(found.problems)
        print(f"{n} problem{'s' if n > 1 else ''}. Nothing was changed.")
        return 1
    for profile, n in found.resources.items():
        where = f" in profile {profile}" if profile else ""
        print(f"No problems. {n} resource{'s are' if n != 1 else ' is'} declared{where}.")
    print("Run `lab plan` to see what would change.")
    return 0
