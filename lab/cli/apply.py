"""apply: makes the machine what is declared.

Plans, shows the plan, asks, and carries it out; `lab apply FILE` carries out a saved plan and refuses a stale one.
Killed anywhere, the next `lab apply` continues. Ctrl-C once finishes the steps in hand; twice cancels them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lab.app.apply import apply, under_saved
from lab.app.lab import Lab
from lab.cli import _applying, _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab apply`."""
    _arguments.overrides(parser)
    _arguments.selection(parser)
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    parser.add_argument("--allow-destroy", action="store_true", help="allow more than 30 %% of the lab to be destroyed")
    parser.add_argument("--json-events", action="store_true", help="tell progress as JSON lines on standard error")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Applies, and prints how it went."""
    saved = None
    if len(args.overrides) == 1 and _is_file(args.overrides[0]):
        saved = Path(args.overrides[0])
        lab = under_saved(lab, saved)
    with _applying.interruptible() as started:
        done = apply(
            lab,
            args.only,
            args.exclude,
            saved=saved,
            allow_destroy=args.allow_destroy,
            approve=_applying.approver(args.yes or saved is not None, quiet=args.quiet, saved=saved is not None),
            started=started,
        )
    return _applying.report(done, sys.stdout, quiet=args.quiet)


def _is_file(word: str) -> bool:
    return "=" not in word and not word.startswith(("~", "+")) and (Path(word).is_file() or "/" in word or "." in word)
