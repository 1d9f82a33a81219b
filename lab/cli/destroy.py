"""destroy: removes what Lab made, of some resources or of all, and of what needs them.

What was adopted is only released; the model store's blobs, runs and snapshots stay until `lab gc`.
"""

from __future__ import annotations

import argparse
import sys

from lab.app.destroy import destroy
from lab.app.lab import Lab
from lab.cli import _applying
from lab.core.problem import problem


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab destroy`."""
    parser.add_argument("only", nargs="*", metavar="GLOB", help="addresses or globs")
    parser.add_argument("--all", action="store_true", help="everything of this profile")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--json-events", action="store_true", help="tell progress as JSON lines on standard error")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Destroys, and prints how it went."""
    if not args.only and not args.all:
        raise problem("say what to destroy", do="give addresses or globs, or `--all`")
    with _applying.interruptible() as started:
        done = destroy(lab, args.only, approve=_applying.approver(args.yes, quiet=args.quiet), started=started)
    return _applying.report(done, sys.stdout, quiet=args.quiet)
