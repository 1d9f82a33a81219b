"""status: every resource and whether it is as declared; what runs or waits for room; and what upkeep is due."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lab.app.care import care
from lab.app.lab import Lab
from lab.app.status import busy, jobs, status
from lab.cli import _arguments, _queue
from lab.plan import text


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab status`."""
    parser.add_argument("only", nargs="*", metavar="GLOB", help="only these")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints one line each."""
    lines = status(lab, args.only)
    if args.json:
        print(json.dumps([asdict(line) for line in lines], indent=1, ensure_ascii=False))
        return 0
    print(text.heading(lab.header()))
    if who := busy(lab):
        print(f"  ! {who} is at work: what is to be done may be begun")
    width = max((len(line.address) for line in lines), default=0)
    for line in lines:
        others = [p for p in line.profiles if p != (lab.profile or "-")]
        also = f"  (profile {', '.join(others)})" if others else ""
        print(f"  {line.address:<{width}}  {line.state}{also}" + (f": {line.reason}" if line.reason else ""))
    for job in jobs(lab):
        print(f"  run {_queue.said(job)}")
    todo = sum(1 for line in lines if line.state.startswith("to "))
    print(
        f"{len(lines)} resource{'s' if len(lines) != 1 else ''}, {todo} not as declared."
        + (" Run `lab plan`." if todo else "")
    )
    for asks, said in [] if args.only else care(lab):
        print(f"  {'!' if asks else '✓'} {said}")
    return 0
