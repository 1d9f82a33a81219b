"""rollback: applies the declarations of an earlier generation.

Its commit, its uncommitted changes, its profile and overrides; the working tree is left as it is.
"""

from __future__ import annotations

import argparse
import sys

from lab.app.lab import Lab
from lab.app.rollback import rollback
from lab.cli import _applying


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab rollback`."""
    parser.add_argument("generation", type=int, help="a number of `lab history`")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--json-events", action="store_true", help="tell progress as JSON lines on standard error")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Rolls back, and prints how it went."""
    with _applying.interruptible() as started:
        done = rollback(lab, args.generation, approve=_applying.approver(args.yes, quiet=args.quiet), started=started)
    code = _applying.report(done, sys.stdout, quiet=args.quiet)
    if done and not code and not args.quiet:
        print("conf/ still declares what it did: `lab plan` shows the way forward again, `git revert` makes it last.")
    return code
