"""Bare `lab`: where you are, what needs attention, and what is likely next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from lab.app.here import here
from lab.app.lab import Lab
from lab.core.language import t
from lab.core.problem import Problems
from lab.plan import text


def main(folder: Path, out: IO[str], stage: Sequence[str] = ()) -> int:
    """Prints a few lines; never changes anything."""
    try:
        lab = Lab.find(folder, stage)
    except Problems:
        print(t("This is not a lab. Make one here with `lab init .`, or see `lab --help`."), file=out)
        return 0
    try:
        _ = lab.declared
    except Problems as e:
        n = len(e.problems)
        one = t("1 problem in conf/. Run `lab validate` to see it.")
        print(one if n == 1 else t("{n} problems in conf/. Run `lab validate` to see them.", n=n), file=out)
        return 1
    found = here(lab)
    print(text.heading(lab.header()), file=out)
    n, m = found.declared, found.recorded
    one = t("1 resource declared, {m} recorded.", m=m)
    print(one if n == 1 else t("{n} resources declared, {m} recorded.", n=n, m=m), file=out)
    for line in found.attention:
        print(f"  ! {line}", file=out)
    steps = t(", then ").join(f"`{step}`" for step in found.next)
    print(t("Next: {steps}. All verbs: `lab --help`.", steps=steps), file=out)
    return 0
