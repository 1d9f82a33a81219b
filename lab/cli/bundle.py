"""bundle: everything the lab is made of in one place, to rebuild it with the network off.

lab bundle                      into the folder ../NAME-bundle
lab bundle -o /Volumes/usb/lab.tar
lab bundle --extras mlx,llama   Lab's wheels with these extras instead of all that are installed here
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.app.bundle import Part, bundle
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.problem import did_you_mean, problem
from lab.core.units import size

PARTS = ("wheels", "archives", "models", "state")
_WHAT = {
    "repository": "the git repository, locks included",
    "wheels": "Lab itself and what it needs",
    "archives": "packages of the environments",
    "models": "models, quantizations and datasets",
    "state": "ledger, history and runs",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab bundle`."""
    _arguments.overrides(parser)
    parser.add_argument("-o", "--out", metavar="PATH", help="a folder, or a file that ends in .tar")
    parser.add_argument("--extras", metavar="A,B", help="extras of Lab that go along; `none` for the core alone")
    parser.add_argument("--without", default="", metavar="A,B", help=f"leave out some of {', '.join(PARTS)}")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Bundles, says how large each part is before writing, and what comes next."""
    without = [w for w in args.without.split(",") if w]
    for word in without:
        if word not in PARTS:
            raise problem(f"`{word}` is no part of a bundle{did_you_mean(word, PARTS)}", do=f"use {', '.join(PARTS)}")
    extras = None if args.extras is None else [e for e in args.extras.split(",") if e and e != "none"]

    def told(parts: Sequence[Part]) -> None:
        for p in parts:
            print(f"  {p.name:<11} {size(p.bytes):>9}  {len(p.entries):>5} files  {_WHAT[p.name]}", file=sys.stderr)
        print(f"  {'total':<11} {size(sum(p.bytes for p in parts)):>9}", file=sys.stderr, flush=True)

    target = Path(args.out).expanduser() if args.out else None
    found = bundle(lab, target, extras=extras, without=without, told=(lambda p: None) if args.quiet else told)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"{found['files']} files, {size(found['bytes'])}, are in {found['path']} (sum {found['sum']}).")
    print(f"Run `lab rebuild --from {found['path']} --into DIR` where the lab is to be; its README.txt says all.")
    return 0
