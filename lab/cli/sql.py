"""sql: asks one reading view over ledger and MLflow: resources, generations, history, runs, metrics, params, sweeps.

lab sql "select experiment, name, status from runs order by started desc limit 5"
"""

from __future__ import annotations

import argparse
import json

from lab.app.lab import Lab
from lab.app.sql import sql
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab sql`."""
    parser.add_argument("query")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the rows."""
    columns, rows = sql(lab, args.query)
    if args.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1, ensure_ascii=False))
        return 0
    cells = [list(columns), *([str(v) if v is not None else "–" for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return 0
