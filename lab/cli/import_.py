"""import: adopts what already exists: it is recorded, nothing is rebuilt or copied."""

from __future__ import annotations

import argparse

from lab.app.adopt import adopt
from lab.app.lab import Lab


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab import`."""
    parser.add_argument("addresses", nargs="*", metavar="ADDRESS", help="declared resources that exist already")
    parser.add_argument("--all", action="store_true", help="everything declared that exists and is not recorded")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Adopts, and prints what."""
    found = adopt(lab, args.addresses, everything=args.all)
    for address in found:
        print(f"  = {address}  adopted")
    print(f"{len(found)} adopted. Run `lab plan` to see how they differ from what is declared.")
    return 0
