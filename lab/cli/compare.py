"""compare: runs side by side: parameters, metrics, inputs; what differs unless --all.

lab compare A B                      two runs, or two experiments' newest
lab compare A B --html page.html     with a plot per metric
lab compare A B --expect 'accuracy>=-1%' --expect 'loss<=+2%'     exit code 1 where B is worse than A by more
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lab.app.lab import Lab
from lab.app.runs import compare
from lab.runs import compare as render


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab compare`."""
    parser.add_argument("runs", nargs="+", help="runs, or experiments for their newest")
    parser.add_argument("--all", action="store_true", help="what is equal, too")
    parser.add_argument("-m", "--metric", action="append", default=[], help="only these metrics")
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="CHANGE",
        help="accuracy>=-1%%, loss<=+2%%: against the first run",
    )
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--csv", action="store_true")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints or writes the comparison."""
    found = compare(lab, args.runs, everything=args.all, metrics=args.metric)
    wrong = render.broken(found, args.expect)
    if args.html:
        args.html.write_text(render.html(found), encoding="utf-8")
        print(f"Written: {args.html}")
    else:
        print((render.markdown if args.markdown else render.as_csv if args.csv else render.text)(found), end="")
    for one in wrong:
        print(f"✗ {one}")
    return 1 if wrong else 0
