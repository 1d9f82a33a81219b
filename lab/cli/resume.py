"""resume: a paused run goes on; a stopped, killed or interrupted one starts again from its checkpoint."""

from __future__ import annotations

import argparse

from lab.app.lab import Lab
from lab.app.runs import resume
from lab.cli._runs import ended


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab resume`."""
    parser.add_argument("run", help="a run, or an experiment for its newest")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Resumes it."""
    one = resume(lab, args.run)
    print(ended(one))
    print(f"See `lab logs {one.id} -f`.")
    return 0
