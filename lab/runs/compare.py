"""Compare: runs side by side; what differs by default. Pure but for reading their folders."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from lab.core.problem import problem
from lab.core.units import duration
from lab.runs.folder import RunFolder
from lab.runs.listing import Line, line, series
from lab.runs.plot import bars, curves, number

_EXPECTED = re.compile(r"^([\w./-]+)\s*(>=|<=)\s*([+-]?[0-9.]+)%$")


@dataclass(frozen=True)
class Row:
    """One value of every run; None where a run has none."""

    group: str
    """`params`, `metrics`, `inputs` or `run`."""
    name: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether not all runs agree."""
        return any(not same(self.values[0], v) for v in self.values[1:])


@dataclass(frozen=True)
class Comparison:
    """Runs as columns, what is known of them as rows."""

    runs: tuple[Line, ...]
    rows: tuple[Row, ...]
    everything: bool = False

    @property
    def shown(self) -> tuple[Row, ...]:
        """The rows to show: those that differ, or all."""
        return tuple(r for r in self.rows if self.everything or r.differs)


def change(before: Any, after: Any) -> float | None:
    """The relative change of a number; None where there is none to tell. Pure."""
    numbers = [v for v in (before, after) if isinstance(v, (int, float)) and math.isfinite(v)]
    return (after - before) / abs(before) if len(numbers) == 2 and before else None


def broken(found: Comparison, expected: Sequence[str]) -> list[str]:
    """What did not hold of `accuracy>=-1%`, `loss<=+2%` …: changes from the first run to each other. Pure.

    Raises Problems for what is no such expectation, or names no metric of the first run.
    """
    wrong = []
    for text in expected:
        m = _EXPECTED.match(text.strip())
        row = next((r for r in found.rows if m and r.group == "metrics" and r.name == m[1]), None)
        if m is None or row is None:
            known = ", ".join(r.name for r in found.rows if r.group == "metrics")
            raise problem(
                f"`{text}` is no expectation", why=f"metrics are {known}", do="write accuracy>=-1% or loss<=+2%"
            )
        limit = float(m[3]) / 100
        for one, value in zip(found.runs[1:], row.values[1:], strict=True):
            moved = 0.0 if same(row.values[0], value) else change(row.values[0], value)
            if moved is None or (moved < limit if m[2] == ">=" else moved > limit):
                told = "gone" if value is None else f"{cell(value)} ({'?' if moved is None else f'{moved:+.1%}'})"
                wrong.append(f"{one.id}: {row.name} {cell(row.values[0])} → {told}, expected {m[2]} {limit:+.1%}")
    return wrong


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal; NaN equals NaN. Pure."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def compare(folders: Sequence[RunFolder], *, everything: bool = False, metrics: Sequence[str] = ()) -> Comparison:
    """The runs side by side. Reads."""
    lines = [line(f) for f in folders]
    inputs = [_inputs(f) for f in folders]
    columns: dict[str, list[Mapping[str, Any]]] = {
        "params": [_flat(one.params) for one in lines],
        "metrics": [{k: v for k, v in one.metrics.items() if not metrics or k in metrics} for one in lines],
        "inputs": list(inputs),
        "run": [{"state": one.state, "time": duration(one.seconds)} for one in lines],
    }
    rows = []
    for group, values in columns.items():
        names: dict[str, None] = {}
        for v in values:
            names.update(dict.fromkeys(v))
        rows += [Row(group, n, tuple(v.get(n) for v in values)) for n in (sorted(names) if group != "run" else names)]
    return Comparison(tuple(lines), tuple(rows), everything)


def text(found: Comparison) -> str:
    """A table for a terminal. Pure."""
    head = ["", *(one.id for one in found.runs)]
    body = [[f"{r.group}.{r.name}", *cells(r)] for r in found.shown]
    if not body:
        return "The runs do not differ in anything recorded.\n"
    widths = [max(len(row[n]) for row in [head, *body]) for n in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [head, *body]]
    return "\n".join(lines) + "\n"


def markdown(found: Comparison) -> str:
    """A Markdown table. Pure."""
    head = ["", *(one.id for one in found.runs)]
    rows = [[f"{r.group}.{r.name}", *(c.replace("|", "\\|") for c in cells(r))] for r in found.shown]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def as_csv(found: Comparison) -> str:
    """CSV with full precision. Pure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", "name", *(one.id for one in found.runs)])
    for r in found.shown:
        writer.writerow([r.group, r.name, *("" if v is None else v for v in r.values)])
    return out.getvalue()


def html(found: Comparison, title: str = "") -> str:
    """One self-contained page: a curve per metric with a trace per run, or bars where there are no curves. Reads."""
    per_run = {one.id: series(one.folder) for one in found.runs}
    names: dict[str, None] = {}
    for of_run in per_run.values():
        names.update(dict.fromkeys(of_run))
    for one in found.runs:
        names.update(dict.fromkeys(one.metrics))
    plots = []
    for name in sorted(names):
        lines = {run: of_run[name] for run, of_run in per_run.items() if name in of_run}
        last = {one.id: one.metrics[name] for one in found.runs if name in one.metrics}
        drawn = curves(name, lines) if any(len(p) > 1 for p in lines.values()) else bars(name, last)
        if drawn:
            plots.append(f'<figure data-metric="{escape(name, True)}">{drawn}</figure>')
    head = "".join(f"<th>{escape(one.id)}</th>" for one in found.runs)
    body = "".join(
        f"<tr{' class=differs' if r.differs else ''}><td>{escape(r.group)}.{escape(r.name)}</td>"
        + "".join(f"<td>{escape(c)}</td>" for c in cells(r))
        + "</tr>"
        for r in found.shown
    )
    label = escape(title or f"Comparison of {len(found.runs)} runs")
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{label}</title>\n<style>body{{font:14px system-ui,sans-serif;max-width:1200px;margin:2em auto;"
        "padding:0 1em}table{border-collapse:collapse}td,th{padding:.3em .7em;border-bottom:1px solid #ddd;"
        "text-align:left}.differs td{font-weight:600}figure{display:inline-block;margin:1em 1em 0 0}</style>\n"
        f"<h1>{label}</h1>\n<table><tr><th></th>{head}</tr>{body}</table>\n{''.join(plots)}\n</html>\n"
    )


def cells(row: Row) -> list[str]:
    """A row's values; of a metric also the change from the first run. Pure."""
    moved = [change(row.values[0], v) if row.group == "metrics" else None for v in row.values[1:]]
    told = [f" ({m:+.1%})" if m else "" for m in (None, *moved)]
    return [cell(v) + t for v, t in zip(row.values, told, strict=True)]


def cell(value: Any) -> str:
    """A value in a cell. Pure."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else str(value)
    return str(value)


def _inputs(folder: RunFolder) -> dict[str, Any]:
    """Digests and versions of what a run was made from, by name. Reads."""
    inputs, spec = folder.read("inputs.json"), folder.spec
    git = inputs.get("git") or {}
    found: dict[str, Any] = {
        "commit": str(git.get("commit", "none"))[:12] + ("+changes" if git.get("dirty") else ""),
        "python": inputs.get("python", ""),
        "host": inputs.get("host", ""),
        "seed": spec.get("seed"),
        "digest": spec.get("digest", ""),
    }
    for kind in ("env", "models", "datasets"):
        for name, one in (inputs.get(kind) or {}).items():
            found[f"{kind}.{name}"] = one.get("digest", "")
    for path, sha in (inputs.get("code") or {}).items():
        found[f"code.{path}"] = str(sha)[:12]
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
