"""bench: tokens per second, time to first token and peak memory of a model or quantization, kept for later.

Where the resource declares a `budget:`, each figure of it says PASS or FAIL, and a FAIL gives exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from lab.app.bench import Bench, bench, judged, kept
from lab.app.generate import resolve
from lab.app.lab import Lab
from lab.core.problem import problem
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab bench`."""
    parser.add_argument("address", help="a model or quantization: quantization.tiny_lm.Q4_K_M")
    parser.add_argument(
        "--depths", default="16,256", metavar="N,N", help="tokens of context before generation (16,256)"
    )
    parser.add_argument("--tokens", type=int, default=48, metavar="N", help="tokens generated each time (48)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="times each, the median counts (3)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of context (the model's, at most 4096)")
    parser.add_argument("--history", action="store_true", help="show what was measured before instead")
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints one row per context depth."""
    if args.history:
        rows = [Bench(**r) for r in kept(lab, str(resolve(lab, args.address)))]
    else:
        try:
            depths = [int(d) for d in args.depths.split(",")]
        except ValueError:
            raise problem(f"{args.depths!r} are no depths", do="give numbers: --depths 16,256") from None
        rows = bench(lab, args.address, depths=depths, tokens=args.tokens, repeats=args.repeats, context=args.context)
    print(json.dumps([asdict(r) for r in rows], indent=1) if args.json else render(rows))
    verdicts = [] if args.history else judged(lab, rows)
    for _, told in verdicts:
        print(told, file=sys.stderr if args.json else sys.stdout)
    return 0 if all(kept for kept, _ in verdicts) else 1


def render(rows: Sequence[Bench]) -> str:
    """The figures as text. Pure."""
    if not rows:
        return "Nothing was measured yet."
    table = [("depth", "prompt tokens/s", "tokens/s", "first token", "memory", "busy")]
    for r in rows:
        table.append((
            str(r.depth), f"{r.prompt_tokens_per_second:.1f}", f"{r.tokens_per_second:.1f}", f"{r.first * 1000:.0f} ms",
            size(r.memory), f"{r.load:.1f}",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    last = rows[-1]
    loaded = f" · loaded in {last.load_s:g} s" if last.load_s else ""
    lines = [f"{last.address} · {last.version} on {last.device} · context {last.context}{loaded}", ""]
    lines += ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
    return "\n".join([*lines, "", "Kept in state/bench.jsonl."])
