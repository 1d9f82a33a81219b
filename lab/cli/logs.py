"""logs: what a run printed; -f follows it while it runs."""

from __future__ import annotations

import argparse
import sys

from lab.app.lab import Lab
from lab.app.runs import logs


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab logs`."""
    parser.add_argument("run", help="a run, or an experiment for its newest")
    parser.add_argument("-f", "--follow", action="store_true", help="until it has ended")
    parser.add_argument("-n", "--tail", type=int, default=0, metavar="LINES", help="only the last lines")
    parser.add_argument("--supervisor", action="store_true", help="what its supervisor said instead")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints it."""
    file = "supervisor.log" if args.supervisor else "output.log"
    try:
        for piece in logs(lab, args.run, follow=args.follow, tail=args.tail, file=file):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        return 130
    return 0
