"""stop: ends a run and all its processes."""

from __future__ import annotations

import argparse

from lab.app.lab import Lab
from lab.app.runs import stop
from lab.cli._runs import ended


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab stop`."""
    parser.add_argument("run", help="a run, or an experiment for its newest")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Stops it."""
    print(ended(stop(lab, args.run)))
    return 0
