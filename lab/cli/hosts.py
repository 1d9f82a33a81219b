"""hosts: the machines whose figures Lab knows, and how far each is supported; a lab takes one by `host=NAME`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.app.hosts import SUPPORT, hosts, memory
from lab.cli import _arguments

ALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab hosts`."""
    _arguments.as_json(parser)


def main(args: argparse.Namespace) -> int:
    """Prints each host in a line, and what the levels of support mean."""
    known = hosts(Path(args.folder) / "conf")
    if args.json:
        print(
            json.dumps(
                [h.model_dump(exclude_defaults=True) | {"platform": h.platform, "support": h.support} for h in known],
                indent=1,
            )
        )
        return 0
    for h in known:
        print(f"  {h.name:<16}  {h.support:<16}  {h.platform:<13}  {memory(h):>9}  {h.chip}".rstrip())
    print("\n".join(f"{level}: {meaning}." for level, meaning in SUPPORT.items()))
    return 0
