"""activity: what was done to the lab, by whom: the newest entries of its audit log.

lab activity                     the last twenty, newest last
lab activity -n 100 --project P  of the experiments of one project: their runs, and the applies that ran them
"""

from __future__ import annotations

import argparse
import json

from lab.app.activity import activity
from lab.app.guest import lines
from lab.app.lab import Lab
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab activity`."""
    parser.add_argument("-n", "--limit", type=_arguments.count, default=20, help="the last so many; 0 for all")
    parser.add_argument("--project", default="", metavar="NAME", help="only what belongs to this project")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints them."""
    found = activity(lab, args.project, args.limit)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else lines(found))
    return 0
