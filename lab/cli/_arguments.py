"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import os
import sys

from lab.core.problem import problem


def overrides(parser: argparse.ArgumentParser) -> None:
    """Hydra overrides as positional words."""
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="Hydra overrides: profile=demo model.x.context=1 ~guest.y"
    )


def selection(parser: argparse.ArgumentParser) -> None:
    """`--only` and `--exclude`."""
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="only these and what they need")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="not these, nor what needs them")


def as_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def count(text: str) -> int:
    """A number, 0 or above."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of 0 or above")
    return int(text)


def colour() -> bool:
    """Whether standard output is a terminal that wants colour."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def tokens(text: str) -> int:
    """`8192`, `8k`, `1M` as tokens."""
    unit = {"k": 1024, "m": 1024**2}.get(text[-1:].lower(), 1)
    number = text[:-1] if unit > 1 else text
    if not number.isdecimal() or not 0 < int(number) * unit <= 2**31:
        raise problem(f"`{text}` is no number of tokens", do="give 8192, 8k or 1M")
    return int(number) * unit
