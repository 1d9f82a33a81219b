"""run: runs an experiment now.

    lab run train                     as declared
    lab run train lr=0.1 seed=7       with other parameters or fields, by Hydra's override grammar
    lab run train -d                  in the background; it outlives this terminal in any case

What it prints is shown as it prints it; Ctrl-C stops it.
"""

from __future__ import annotations

import argparse
import sys

from lab.app.lab import Lab
from lab.app.run import run
from lab.app.runs import logs, settled, show, stop
from lab.cli._runs import ended


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab run`."""
    parser.add_argument("experiment", help="the experiment's name")
    parser.add_argument("words", nargs="*", metavar="OVERRIDE", help="lr=0.1, seed=7, or any Hydra override")
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait for it")
    parser.add_argument("--priority", type=int, metavar="N", help="its place among those that wait for room")
    parser.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="a tag for this run")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Runs it, showing what it prints; 0 when it finished."""
    handle = run(lab, args.experiment, args.words, detach=True, tags=args.tag, priority=args.priority)
    if args.detach:
        print(f"{handle.id} runs. See `lab logs {handle.id} -f`, `lab stop {handle.id}`.")
        return 0
    try:
        for piece in logs(lab, handle.id, follow=True):
            if not args.quiet:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        handle.wait()
    except KeyboardInterrupt:
        stop(lab, handle.id)
        print(ended(show(lab, handle.id)))
        return 130
    one = show(lab, handle.id)
    print(ended(one))
    settled(lab, handle.id)
    return 0 if one.state == "finished" else 1
