"""lock: resolves versions, revisions and hashes into conf/lock/, to be committed."""

from __future__ import annotations

import argparse
import json

from lab.app.lab import Lab
from lab.app.lock import lock
from lab.cli import _arguments
from lab.core.problem import Problems
from lab.plan.decide import told


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab lock`."""
    parser.add_argument("only", nargs="*", metavar="GLOB", help="only these")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Locks, and prints what moved."""
    found = lock(lab, args.only)
    failed = [p for one in found for p in one.problems]
    if args.json:
        rows = [{"address": o.address, "moved": [d.to_json() for d in o.moved], "fresh": o.fresh} for o in found]
        print(json.dumps({"locks": rows, "problems": [p.to_json() for p in failed]}, indent=1, ensure_ascii=False))
        return 1 if failed else 0
    for one in found:
        if one.problems:
            continue
        what = "locked" if one.fresh else f"{len(one.moved)} changed" if one.moved else "as it was"
        print(f"  {one.address}  {one.said or what}")
        for d in one.moved[:20]:
            print(f"      {told(d)}")
    if failed:
        raise Problems(*failed)
    print(f"{len(found)} locked. Commit conf/lock/ to git." if found else "Nothing here needs a lock.")
    return 0
