"""integrations: the tools that Lab joins: their kinds, what is installed here, and when their tests last passed.

lab integrations --tested     only those whose tests passed with the tool itself
"""

from __future__ import annotations

import argparse
import json

from lab.app.integrations import integrations, version
from lab.cli import _arguments

ALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab integrations`."""
    parser.add_argument("--tested", action="store_true", help="only those whose tests passed, and when they last did")
    _arguments.as_json(parser)


def main(args: argparse.Namespace) -> int:
    """Prints each tool in a line."""
    rows = [
        {
            "name": one.name,
            "does": one.does,
            "kinds": list(one.kinds),
            "installed": version(one),
            "passed": passed.day if passed else "",
            "with": passed.version if passed else "",
            "stand_in": one.stand_in,
            "tests": list(one.tests),
        }
        for one, passed in integrations(tested=args.tested).items()
    ]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        here = f"{row['installed']} is here" if row["installed"] else "not here"
        state = f"passed {row['passed']} with {row['with']}" if row["passed"] else row["stand_in"] or "not tried yet"
        print(f"  {row['name']:<22}  {', '.join(row['kinds']):<30}  {here:<20}  {state}")
        if args.tested:
            print("\n".join(f"      {test}" for test in row["tests"]))
    return 0
