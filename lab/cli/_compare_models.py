"""How `lab models compare MODEL…` takes its arguments and prints its table; wired by `lab.cli.models`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.app.compare_models import Comparison, compare, markdown, table
from lab.app.lab import Lab
from lab.app.measured import Measured, measured
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab models compare`."""
    parser.add_argument("model", nargs="+", help="a model, for its levels; or several models or levels: A B")
    parser.add_argument("--metric", default="accuracy", help="with several: the evaluations' metric (accuracy)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="measure on this text (what the recipe held out)")
    parser.add_argument("--tokens", type=int, default=512, metavar="N", help="the first N tokens of it (512)")
    parser.add_argument("--refresh", action="store_true", help="measure again what was measured already")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON")
    shape.add_argument("--markdown", action="store_true", help="print a Markdown table")
    shape.add_argument("--csv", action="store_true", help="print CSV")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints one row per level of a model, or per model where several are named."""
    if len(args.model) > 1:
        return _several(measured(lab, args.model, args.metric), args)
    found = compare(lab, args.model[0], text=args.text, tokens=args.tokens, refresh=args.refresh)
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
    elif args.csv:
        print(table(found), end="")
    else:
        print(markdown(found) if args.markdown else render(found))
    return 0


def _several(rows: list[Measured], args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps([r.to_json() for r in rows], indent=1))
        return 0
    table = [("model", rows[0].metric, "tokens/s", "size", "run")]
    for r in rows:
        accuracy, speed = (f"{v:.6g}" if v is not None else "–" for v in (r.accuracy, r.tokens_per_second))
        table.append((r.address, accuracy, speed, size(r.bytes) if r.bytes is not None else "–", r.run or "–"))
    if args.csv or args.markdown:
        mark = "," if args.csv else " | "
        lines = [mark.join(row) for row in table]
        print("\n".join(lines if args.csv else [f"| {x} |" for x in (lines[0], " | ".join(["---"] * 5), *lines[1:])]))
        return 0
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    for row in table:
        cells = [x.ljust(w) if i in (0, 4) else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    hints = [(r.accuracy, f"evaluate it by an experiment that names it under `models:` and returns {r.metric}", r)
             for r in rows] + [(r.tokens_per_second, f"`lab bench {r.address}`", r) for r in rows]  # fmt: skip
    for value, do, r in hints:
        if value is None:
            print(f"{r.address} has a gap: {do}")
    return 0


def render(c: Comparison) -> str:
    """The table as text. Pure."""
    rows = [("level", "format", "size", "bits/weight", "tokens/s", "perplexity", "KL", "same top", "memory")]
    for r in c.rows:
        rows.append((
            r.level, r.format, size(r.bytes), f"{r.bits_per_weight:.2f}", f"{r.tokens_per_second:.0f}",
            f"{r.perplexity:.2f}", f"{r.kl:.5f}", f"{r.same_top:.1%}", size(r.memory),
        ))  # fmt: skip
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = [f"model.{c.model} on {c.tokens} tokens of {c.text}", ""]
    for row in rows:
        cells = [x.ljust(w) if i < 2 else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    lines += [
        "",
        "KL is how far the next token's probabilities are from the original's; judge by it, not by perplexity.",
    ]
    if c.missing:
        lines.append(f"Not there yet: {', '.join(c.missing)}. Run `lab apply`.")
    lines.append(f"Saved as state/compare/{c.model}.json, .md and .csv.")
    return "\n".join(lines)
