"""maintenance: what is due, do it or note it as done, and what would free space (due, run, clean)."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lab.app import maintenance
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab maintenance`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    one = verbs.add_parser("due", help="what is due")
    one.add_argument("--now", default="", metavar="DAY", help="as if it were this day, 2030-01-31")
    _arguments.as_json(one)
    one = verbs.add_parser("run", help="do what is due, or one task; a reminder is noted as done")
    one.add_argument("task", nargs="?", default="")
    one.add_argument("--check", action="store_true", help="say what would be done, and do nothing")
    one.add_argument("--scheduled", action="store_true", help="run by the timer")
    _arguments.as_json(one)
    _arguments.as_json(verbs.add_parser("clean", help="what may be freed, how much, and by which command"))


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Does what was asked and prints what came of it."""
    if args.what == "due":
        found: Any = maintenance.due(lab, maintenance.parse_day(args.now) if args.now else None)
        lines = [f"{d['task']:<28} {d['every']:<10} last {d['last'] or 'never'}" for d in found] or ["Nothing is due."]
    elif args.what == "run":
        found = maintenance.run(lab, args.task, args.check)
        lines = [f"{d['task']}: {d['outcome']}" for d in found] or ["Nothing that Lab can do is due."]
    else:
        found = maintenance.suggestions(lab)
        lines = [f"{size(s['bytes']):>10}  {s['what']:<36} {s['do']}" for s in found] or ["Nothing to free."]
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines))
    return 0
