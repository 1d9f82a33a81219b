"""forecast: what a model takes to run, over types and contexts: bytes, peak memory, tokens/s; `check` against truths"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lab.app import forecast as app
from lab.app.forecast import Table
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.forecast import Estimate
from lab.forecast.check import Checked, Line

GIB = 2**30


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab forecast`."""
    parser.add_argument("model", help="a declared model, a hub id, a path or a published name; or `check`")
    parser.add_argument("file", nargs="?", type=Path, help="for `check`: the table of truths")
    parser.add_argument("--type", action="append", default=[], dest="types", metavar="TYPE", help="Q4_K_M,mlx-4bit,…")
    parser.add_argument("--context", action="append", default=[], metavar="TOKENS", help="8192 or 8k,32k")
    parser.add_argument("--host", default="", metavar="NAME", help="conf/host/NAME.yaml instead of this lab's host")
    parser.add_argument("--kv-type", default="f16", help="type of the cache: f16, q8_0, …")
    parser.add_argument("--sequences", type=int, default=1, help="requests at once")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw peak memory over context as SVG")
    parser.add_argument("--architectures", type=Path, metavar="FILE", help="for `check`: a table of architectures")
    _arguments.as_json(parser)


def _listed(given: list[str]) -> list[str]:
    """Every value of an option that is given several times, or with commas."""
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the table, or the check."""
    if args.model == "check" and args.file:
        found = app.check_file(args.file, args.architectures)
        print(json.dumps(_check_json(found), indent=1) if args.json else render_check(found))
        return 0
    contexts = [_arguments.tokens(c) for c in _listed(args.context)]
    table = app.forecast(lab, args.model, _listed(args.types), contexts, args.host, args.kv_type, args.sequences)
    if args.chart:
        from lab.cli._chart import svg

        args.chart.write_text(svg(table), encoding="utf-8")
    print(json.dumps(table.to_json(), indent=1) if args.json else render(table))
    return 0


def render(t: Table) -> str:
    """A row per type; peak memory and speed per context, `✗` where it does not fit. Pure."""
    lines = [f"{t.model} on {t.host.name}" + (f": {_gib(t.limit)} for a model ({t.limit_name})" if t.limit else "")]
    head = ["", "weights", *(f"at {_tokens(c)}" for c in t.contexts), "tokens/s", "prompt/s"]
    rows = [head]
    for row in t.rows:
        first = row[0]
        cells = [first.use.label(), _cell(first.weights)]
        for n in row:
            mark = "" if n.peak is None or t.limit is None else " ✗" if n.peak.value > t.limit else ""
            cells.append(_cell(n.peak) + mark)
        rows.append([*cells, _rate(first.decode), _rate(first.prefill)])
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    for cells in rows:
        padded = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        lines.append("  " + "  ".join(padded).rstrip())
    notes = dict.fromkeys(note for row in t.rows for n in row for note in n.notes)
    lines += [f"  not known: {note}" for note in notes]
    lines += [f"  stale: {e.stale}; run `lab calibrate`" for e in t.host.engines.values() if e.stale]
    if any("✗" in c for r in rows for c in r):
        lines.append(f"✗ does not fit. `lab advise {t.model}` says what does.")
    return "\n".join(lines)


def render_check(found: list[Checked]) -> str:
    """Row by row, then by quantity, class and engine, then by quantity. Pure."""
    from lab.forecast.check import table

    rows = [["id", "quantity", "model", "truth", "forecast", "error", "interval"]]
    for c in found:
        error = "unknown" if c.error is None else f"{c.error:+.2%}"
        held = "" if c.held is None else "held" if c.held else "missed"
        shown = _short(c.forecast.value) if c.forecast else "–"
        rows.append([c.id, c.quantity, c.model[:36], _short(c.truth), shown, error, held or c.why[:60]])
    lines = _aligned(rows)
    head = ["quantity", "class", "engine", "rows", "unknown", "mean error", "worst", "held"]
    lines += ["", *_aligned([head, *(_line(x) for x in table(found))])]
    lines += ["", *_aligned([head, *(_line(x) for x in app.summary(found))])]
    return "\n".join(lines)


def _line(x: Line) -> list[str]:
    share = ["–" if v is None else f"{v:.2%}" for v in (x.mean, x.worst)]
    held = "–" if x.held is None else f"{x.held:.0%}"
    return [x.quantity, x.kind, x.engine, str(x.count), str(x.unknown), *share, held]


def _check_json(found: list[Checked]) -> dict[str, object]:
    from lab.forecast.check import table

    def lines(many: list[Line]) -> list[dict[str, object]]:
        names = ("quantity", "kind", "engine", "count", "unknown", "mean", "worst", "held")
        return [{("class" if n == "kind" else n): getattr(x, n) for n in names} for x in many]

    return {
        "format": 1,
        "rows": [c.to_json() for c in found],
        "table": lines(table(found)),
        "summary": lines(app.summary(found)),
    }


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _cell(e: Estimate | None) -> str:
    return "?" if e is None else _gib(e.value)


def _gib(n: float) -> str:
    return f"{n / GIB:.1f} GiB" if n >= GIB else f"{n / 2**20:.0f} MiB"


def _rate(e: Estimate | None) -> str:
    return "?" if e is None else f"{e.value:.0f} ({e.low:.0f}–{e.high:.0f})" if e.value >= 10 else f"{e.value:.1f}"


def _short(n: float) -> str:
    return f"{n:,.0f}" if n >= 10_000 else f"{n:.2f}"


def _tokens(n: int) -> str:
    return f"{n // 1024}k" if n % 1024 == 0 else str(n)
