"""drift: what changed on the machine since the last apply, every file's stat looked at.

Exit code 1 where anything drifted.
"""

from __future__ import annotations

import argparse
import json

from lab.app.lab import Lab
from lab.app.status import Checked, drift
from lab.cli import _arguments
from lab.core.units import duration
from lab.plan.decide import told


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab drift`."""
    parser.add_argument("only", nargs="*", metavar="GLOB", help="only these")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints what drifted."""
    return report(drift(lab, args.only), args, "as recorded")


def report(found: Checked, args: argparse.Namespace, sound: str) -> int:
    """Prints what a check found; 1 where anything is not as recorded."""
    if args.json:
        out = {
            "drift": {a: [d.to_json() for d in ds] for a, ds in found.drift.items()},
            "gone": list(found.gone),
            "unknown": found.unknown,
            "sound": found.sound,
            "seconds": found.seconds,
        }
        print(json.dumps(out, indent=1, ensure_ascii=False))
    else:
        for address in found.gone:
            print(f"  ! {address}  is gone")
        for address, fields in found.drift.items():
            print(f"  ! {address}")
            for d in fields[: 50 if not args.verbose else None]:
                print(f"      {told(d)}")
            if len(fields) > 50 and not args.verbose:
                print(f"      … {len(fields) - 50} more (-v shows all)")
        for address, why in found.unknown.items():
            print(f"  ? {address}  not known: {why}")
        print(f"{found.sound} {sound}, {len(found.drift) + len(found.gone)} not. {duration(found.seconds)}.")
        if found.drift or found.gone:
            print("Run `lab apply` to repair.")
    return 1 if found.drift or found.gone else 0
