"""Bare `lab`: where you are, and what is likely next."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from lab.app.lab import Lab
from lab.core.problem import Problems
from lab.plan import text


def main(folder: Path, out: IO[str]) -> int:
    """Prints a few lines; never changes anything."""
    try:
        lab = Lab.find(folder)
    except Problems:
        print("This is not a lab. Make one here with `lab init .`, or see `lab --help`.", file=out)
        return 0
    try:
        print(text.heading(lab.header()), file=out)
    except Problems as e:
        print(f"{len(e.problems)} problem(s) in conf/. Run `lab validate` to see them.", file=out)
        return 1
    declared, recorded = len(lab.declarations), len(lab.records)
    print(f"{declared} resources declared, {recorded} recorded.", file=out)
    print("Next: `lab plan`" + ("" if recorded else ", then `lab apply`") + ". All verbs: `lab --help`.", file=out)
    return 0
