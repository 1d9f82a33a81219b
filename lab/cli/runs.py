"""runs: lists, filters and sorts runs, and says all of one.

lab runs                                  newest first
lab runs train -w 'lr>0.01' -w state=finished --sort loss -c lr -c loss
lab runs show RUN · lab runs record RUN · lab runs pause RUN
lab runs export RUN RUN --to FILE.zip     to another lab (`lab runs import FILE.zip`); .csv, .parquet, .json for others
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.app.lab import Lab
from lab.app.runs import pause, record, runs, show
from lab.app.share import export, take
from lab.cli import _arguments
from lab.cli._runs import details, ended, table
from lab.core.problem import problem

_ONE = ("show", "record", "pause")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab runs`."""
    parser.add_argument("words", nargs="*", metavar="EXPERIMENT | show | record | pause | export RUN | import FILE")
    parser.add_argument("-w", "--where", action="append", default=[], metavar="CONDITION", help="loss<2, state=failed")
    parser.add_argument(
        "--sort", default="-started", metavar="KEY", help="a metric, a parameter, seconds; -KEY descends"
    )
    parser.add_argument("-n", "--limit", type=int, default=0, help="at most so many")
    parser.add_argument("-c", "--column", action="append", default=[], help="a metric or parameter to show")
    parser.add_argument("--to", type=Path, help="for record, export: where it is written")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints them."""
    if args.words and args.words[0] in _ONE:
        verb, *names = args.words
        if len(names) != 1:
            raise problem(f"`lab runs {verb}` takes one run", do=f"write `lab runs {verb} RUN`")
        if verb == "record":
            print(f"Written: {record(lab, names[0], args.to)}")
        elif verb == "pause":
            print(ended(pause(lab, names[0])))
        else:
            one = show(lab, names[0])
            print(json.dumps(one.to_json(), indent=1, ensure_ascii=False) if args.json else details(one))
        return 0
    if args.words and args.words[0] == "export":
        if len(args.words) < 2 or args.to is None:
            raise problem("`lab runs export` takes runs and a file", do="write `lab runs export RUN --to FILE.zip`")
        print(f"Written: {args.to} ({export(lab, args.words[1:], args.to)})")
        return 0
    if args.words and args.words[0] == "import":
        if len(args.words) != 2:
            raise problem("`lab runs import` takes one archive", do="write `lab runs import FILE.zip`")
        came, known = take(lab, Path(args.words[1]))
        print("\n".join([*(f"+ {n}" for n in came), *(f"  {n} was here already" for n in known)]))
        print(f"{len(came)} runs came. See `lab runs`; `lab reproduce RUN` makes one again.")
        return 0
    if len(args.words) > 1:
        raise problem("`lab runs` takes one experiment", do="filter by `-w` for more")
    found = runs(lab, args.words[0] if args.words else "", args.where, args.sort, args.limit)
    if args.json:
        print(json.dumps([one.to_json() for one in found], indent=1, ensure_ascii=False))
    else:
        print(table(found, args.column))
    return 0
