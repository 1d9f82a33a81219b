"""verify: reads every byte again and compares every hash with the ledger.

Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse

from lab.app.lab import Lab
from lab.app.status import verify
from lab.cli import _arguments
from lab.cli.drift import report


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab verify`."""
    parser.add_argument("only", nargs="*", metavar="GLOB", help="only these")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints what differs."""
    return report(verify(lab, args.only), args, "verified to the byte")
