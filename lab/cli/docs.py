"""docs: writes the pages made from code (kinds, verbs), or with --check says which are stale."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab.cli import _pages
from lab.core.problem import Problem, Problems
from lab.declare import docs

ALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab docs`."""
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is stale")


def main(args: argparse.Namespace) -> int:
    """Writes or checks `docs/kinds/` and `docs/verbs.md`."""
    root = Path(args.folder)
    if args.check:
        if not (root / docs.FOLDER).is_dir() and not (root / "docs/verbs.md").is_file():
            print("This lab keeps no pages made from code. `lab docs` writes them.")
            return 0
        stale = [*(f"{docs.FOLDER}/{page}" for page in docs.check(root)), *_pages.check(root)]
        if stale:
            raise Problems(*(Problem(f"{page} is stale", do="run `lab docs`") for page in stale))
        print("The pages made from code are as the code says.")
        return 0
    written = [*docs.write(root), *_pages.write(root)]
    print("\n".join(f"  {page}" for page in written) or "Nothing was stale.")
    return 0
