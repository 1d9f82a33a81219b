"""restore: put back what a snapshot holds, all of it or some addresses, in place or beside."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from lab.app.lab import Lab
from lab.app.restore import restore
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab restore`."""
    parser.add_argument(
        "addresses", nargs="*", metavar="ADDRESS", help="experiment.x, conf, state; all where none is given"
    )
    parser.add_argument(
        "--at", default="", metavar="TIME", help="2026-11-20, 2026-11-20T18:30, or a snapshot of `lab backup list`"
    )
    parser.add_argument("--to", default="", metavar="DIR", help="restore below DIR instead of in place")
    parser.add_argument("--backup", default="", metavar="NAME", help="which backup; may be left out where there is one")
    parser.add_argument("--repo", default="", help="which of its repositories; the first that works by default")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Restores, and says what and from when."""
    to = Path(args.to).absolute() if args.to else None
    found = restore(lab, args.addresses, at=args.at, to=to, name=args.backup, repo=args.repo)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["at"]))
    where = f"below {to}" if to else "in their places"
    print(f"{found['files']} files of {when} (snapshot {found['snapshot']}) are {where}.")
    if found["ledger"]:
        print(
            "The ledger is on a server and stays as it is. The snapshot's copy would lose what was recorded since: "
            f"`lab state restore {found['ledger']}` makes it the ledger."
        )
    if found["fetch"]:
        print(f"To fetch again: {', '.join(found['fetch'])}.")
    print("Run `lab plan` to see what differs from the declarations.")
    return 0
