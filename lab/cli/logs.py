"""logs: what a run printed; -f follows it while it runs.

lab logs train -f            in this terminal
lab logs train --page        with its curves in a browser, live, on this machine only
"""

from __future__ import annotations

import argparse
import sys

from lab.app.lab import Lab
from lab.app.live import live
from lab.app.runs import logs


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab logs`."""
    parser.add_argument("run", help="a run, or an experiment for its newest")
    parser.add_argument("-f", "--follow", action="store_true", help="until it has ended")
    parser.add_argument("-n", "--tail", type=int, default=0, metavar="LINES", help="only the last lines")
    parser.add_argument("--page", action="store_true", help="log and curves as a live page on loopback, until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="for --page: its port; by default a free one")
    parser.add_argument("--supervisor", action="store_true", help="what its supervisor said instead")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints it."""
    if args.page:
        server = live(lab, args.run, args.port)
        print(f"Live at {server.url}. Ctrl-C ends the page, not the run.", flush=True)
        try:
            server.serve()
        except KeyboardInterrupt:
            return 0
    file = "supervisor.log" if args.supervisor else "output.log"
    try:
        for piece in logs(lab, args.run, follow=args.follow, tail=args.tail, file=file):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        return 130
    return 0
