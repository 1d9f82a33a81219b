"""gc: free what no declaration, record, run or kept generation needs, after showing it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from lab.app.gc import Findings, find, gc
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.problem import problem
from lab.core.units import size

SHOWN = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab gc`."""
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="only show")
    parser.add_argument("--generations", type=int, default=1, metavar="N", help="keep what the last N declared (1)")
    parser.add_argument(
        "--older", type=float, default=7, metavar="DAYS", help="free partial downloads older than this (7)"
    )
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Shows, asks, frees, and says how many bytes came back."""
    if args.generations < 1:
        raise problem("the last generation is always kept", do="give `--generations` a number of 1 or more")
    found = find(lab, keep=args.generations, older=args.older)
    if args.json and not args.yes:
        print(_json(found))
        return 0
    if not args.json:
        print(text(found))
    if not found.waste or args.dry_run:
        return 0
    if not args.yes:
        if not sys.stdin.isatty():
            raise problem("nobody can be asked here", why="standard input is no terminal", do="add `--yes`")
        if input("Free it? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was freed.")
            return 1
    done = gc(lab, found, keep=args.generations, older=args.older)
    print(_json(done) if args.json else f"Freed {size(done.bytes)}.")
    return 0


def _json(found: Findings) -> str:
    shown = {"waste": [asdict(w) for w in found.waste], "kept": dict(found.kept), "bytes": found.bytes}
    return json.dumps(shown, indent=1)


def text(found: Findings) -> str:
    """What may be freed, largest first. Pure."""
    lines = []
    for waste in sorted(found.waste, key=lambda w: -w.bytes)[:SHOWN]:
        lines.append(f"  - {size(waste.bytes):>9}  {waste.kind:<8} {waste.path}\n              {waste.why}")
    if len(found.waste) > SHOWN:
        lines.append(f"  … and {len(found.waste) - SHOWN} more (`--json` lists all)")
    lines += [f"  {size(n)} of blobs without a view are kept for {reason}." for reason, n in sorted(found.kept.items())]
    lines.append(f"{size(found.bytes)} can be freed." if found.waste else "Nothing to free.")
    return "\n".join(lines)
