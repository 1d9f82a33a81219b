"""guest: who may use what, what they did, whether the audit log is whole, and the broker (list, log, verify, serve)."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lab.adapters import audit
from lab.app import broker, guest
from lab.app.lab import Lab
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab guest`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    _arguments.as_json(verbs.add_parser("list", help="the declared guests"))
    one = verbs.add_parser("log", help="what guests did, and your own applies and runs")
    one.add_argument("name", nargs="?", default="", help="only this account")
    _arguments.as_json(one)
    verbs.add_parser("verify", help="check that no line of the audit log was altered or taken out")
    verbs.add_parser("serve", help="be the broker that answers guests; apply starts it as a service")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Does what was asked and prints what came of it."""
    if args.what == "serve":
        broker.serve(lab)
        return 0
    if args.what == "verify":
        sound, wrong = audit.verify(guest.path(lab))
        print(f"{sound} entries are sound" + (f"; {wrong}" if wrong else "."))
        return 1 if wrong else 0
    found: Any
    if args.what == "list":
        found = guest.guests(lab)
        lines = [
            f"{g['account']:<16} until {g['expires']:<10}  {'' if g['there'] else 'not made  '}{', '.join(g['may'])}"
            for g in found
        ]
        text = "\n".join(lines) or "No guest is declared."
    else:
        found = guest.activity(lab, args.name)
        text = guest.lines(found)
    print(json.dumps(found, indent=1) if args.json else text)
    return 0
