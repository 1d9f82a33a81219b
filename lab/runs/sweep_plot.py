"""Pictures of a sweep as one HTML page of SVG, with nothing but the standard library. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lab.runs.plot import bars, curves, number
from lab.runs.sweep_ports import Ended
from lab.runs.sweep_summary import best

_BOX = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11" fill="#333"'


def page(
    title: str, objective: Mapping[str, str], trials: Sequence[Ended], importance: Mapping[str, Mapping[str, float]]
) -> str:
    """History, intermediate values, importance, slices, contour, parallel coordinates, front: what applies."""
    done = [t for t in trials if t.state == "complete" and t.values]
    parts: list[str] = []
    for at, (metric, goal) in enumerate(objective.items()):
        parts.append(history(f"{metric} by trial", done, at, goal))
        if metric in importance:
            parts.append(bars(f"importance for {metric}", importance[metric]))
        ranked = list(importance.get(metric, {})) or names(done)
        for name in ranked[:4]:
            parts.append(scatter(f"{metric} over {name}", name, metric, done, lambda t, n=name: t.params.get(n), at))
        numeric = [n for n in ranked if scale(done, n) is not None]
        if len(numeric) >= 2:
            parts.append(
                contour(f"{metric} over {numeric[0]} and {numeric[1]}", numeric[0], numeric[1], done, at, goal)
            )
        parts.append(parallel(f"parameters and {metric}", done, metric, at, goal))
    points = {f"{t.number} {t.state}": sorted(t.points.items()) for t in trials if len(t.points) > 1}
    if points and len(objective) == 1:
        parts.append(curves(f"{next(iter(objective))} while it ran", dict(list(points.items())[-40:]), height=420))
    if len(objective) == 2:
        parts.append(front(done, objective))
    body = "\n".join(f"<section>{p}</section>" for p in parts if p)
    style = "body{font-family:sans-serif;max-width:1400px;margin:1em auto}section{display:inline-block;margin:8px}"
    head = f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    return f"{head}<h1>{escape(title)}</h1>\n{body}\n"


def names(trials: Sequence[Ended]) -> list[str]:
    """Every parameter that some trial has, in order of appearance. Pure."""
    return list(dict.fromkeys(n for t in trials for n in t.params))


def history(title: str, done: Sequence[Ended], at: int, goal: str) -> str:
    """Each trial's value, and the best so far."""
    pick = max if goal == "max" else min
    values = [(float(t.number), t.values[at]) for t in done]
    so_far: list[tuple[float, float]] = []
    for x, y in values:
        so_far.append((x, pick(y, so_far[-1][1]) if so_far else y))
    return curves(title, {"trial": values, "best so far": so_far})


class Scale:
    """A parameter's or metric's place on an axis: 0 to 1, logarithmic where it spans three decades."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.choices: list[str] | None = None
        if any(isinstance(v, (bool, str, list)) or v is None for v in values):
            self.choices = sorted({str(v) for v in values})
            return
        self.low, self.high = min(values), max(values)
        self.log = self.low > 0 and self.high / self.low >= 1000
        if self.low == self.high:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def __call__(self, value: Any) -> float:
        if self.choices is not None:
            return (self.choices.index(str(value)) + 0.5) / len(self.choices)
        f = math.log10 if self.log else float
        return (f(value) - f(self.low)) / (f(self.high) - f(self.low))

    def marks(self) -> list[tuple[float, str]]:
        """Places and labels along the axis."""
        if self.choices is not None:
            return [(self(c), c[:12]) for c in self.choices]
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return [(i / 3, number(10 ** (low + (high - low) * i / 3))) for i in range(4)]
        return [(i / 3, number(self.low + (self.high - self.low) * i / 3)) for i in range(4)]


def scale(done: Sequence[Ended], name: str) -> Scale | None:
    """The axis of a parameter with numbers; None where it has none, or one only. Pure."""
    values = [t.params[name] for t in done if name in t.params]
    if len(set(map(str, values))) < 2 or any(isinstance(v, (bool, str, list)) or v is None for v in values):
        return None
    return Scale(values)


def scatter(title: str, x_name: str, y_name: str, done: Sequence[Ended], x: Any, at: int) -> str:
    """One mark per trial; those without the parameter are left out."""
    pairs = [(x(t), t.values[at], t.number) for t in done if x(t) is not None]
    if not pairs:
        return ""
    sx, sy = Scale([p[0] for p in pairs]), Scale([p[1] for p in pairs])
    marks = [
        f'<circle data-trial="{n}" cx="{60 + sx(a) * 320:.1f}" cy="{250 - sy(b) * 210:.1f}" r="3.5" fill="{shade}"/>'
        for (a, b, n), shade in zip(pairs, (_shade(k / len(pairs)) for k in range(len(pairs))), strict=True)
    ]
    return _framed(title, x_name, y_name, sx, sy, marks)


def front(done: Sequence[Ended], objective: Mapping[str, str]) -> str:
    """Two metrics against each other, the Pareto front joined."""
    if not done:
        return ""
    (a, b), sx, sy = tuple(objective), Scale([t.values[0] for t in done]), Scale([t.values[1] for t in done])
    place = {t.number: (60 + sx(t.values[0]) * 320, 250 - sy(t.values[1]) * 210) for t in done}
    best_ones = sorted(best(done, objective), key=lambda t: t.values[0])
    line = " L".join(f"{x:.1f},{y:.1f}" for x, y in (place[t.number] for t in best_ones))
    marks = [f'<circle data-trial="{n}" cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#9ab"/>' for n, (x, y) in place.items()]
    marks.append(f'<path data-series="front" d="M{line}" fill="none" stroke="#c8553d" stroke-width="1.5"/>')
    return _framed("Pareto front", a, b, sx, sy, marks)


def contour(title: str, x_name: str, y_name: str, done: Sequence[Ended], at: int, goal: str) -> str:
    """The metric over two parameters: a cell is the mean of all trials by inverse squared distance."""
    have = [t for t in done if x_name in t.params and y_name in t.params]
    sx, sy, sz = scale(have, x_name), scale(have, y_name), Scale([t.values[at] for t in have] or [0])
    if sx is None or sy is None:
        return ""
    known = [(sx(t.params[x_name]), sy(t.params[y_name]), sz(t.values[at]), t.number) for t in have]
    marks, size = [], 24
    wide, high = 320 / size, 210 / size
    for i in range(size):
        for j in range(size):
            x, y = (i + 0.5) / size, (j + 0.5) / size
            weights = [(1 / ((x - a) ** 2 + (y - b) ** 2 + 1e-4), z) for a, b, z, _ in known]
            z = sum(w * v for w, v in weights) / sum(w for w, _ in weights)
            z = 1 - z if goal == "max" else z
            marks.append(
                f'<rect x="{60 + i * wide:.1f}" y="{250 - (j + 1) * high:.1f}" width="{wide + 0.3:.1f}" '
                f'height="{high + 0.3:.1f}" fill="{_heat(z)}"/>'
            )
    marks += [
        f'<circle data-trial="{n}" cx="{60 + a * 320:.1f}" cy="{250 - b * 210:.1f}" r="2" fill="#222"/>'
        for a, b, _, n in known
    ]
    return _framed(title, x_name, y_name, sx, sy, marks)


def parallel(title: str, done: Sequence[Ended], metric: str, at: int, goal: str) -> str:
    """An axis per parameter and one for the metric; a line per trial, the better the darker."""
    axes = names(done)
    if not done or not axes:
        return ""
    scales = [Scale([t.params[n] for t in done if n in t.params]) for n in axes]
    last = Scale([t.values[at] for t in done])
    width, gap = 120 + 130 * len(axes), 130
    out = [f'<svg {_BOX} viewBox="0 0 {width} 300" width="{width}">']
    out.append(f'<text x="{width / 2:.0f}" y="16" text-anchor="middle" font-size="13">{escape(title)}</text>')
    worst_first = sorted(done, key=lambda t: t.values[at], reverse=goal == "min")
    for t in worst_first:
        place = [
            (40 + gap * i, 250 - s(t.params[n]) * 200)
            for i, (n, s) in enumerate(zip(axes, scales, strict=True))
            if n in t.params
        ]
        place.append((40 + gap * len(axes), 250 - last(t.values[at]) * 200))
        good = 1 - last(t.values[at]) if goal == "min" else last(t.values[at])
        line = " L".join(f"{x},{y:.1f}" for x, y in place)
        out.append(
            f'<path data-trial="{t.number}" d="M{line}" fill="none" stroke="{_shade(good)}" stroke-opacity="0.7"/>'
        )
    for i, (name, s) in enumerate(zip([*axes, metric], [*scales, last], strict=True)):
        x = 40 + gap * i
        out.append(f'<line x1="{x}" x2="{x}" y1="50" y2="250" stroke="#333"/>')
        out.append(f'<text x="{x}" y="40" text-anchor="middle">{escape(name[:20])}</text>')
        out += [
            f'<text x="{x + 4}" y="{254 - p * 200:.0f}" font-size="9">{escape(label)}</text>' for p, label in s.marks()
        ]
    return "\n".join([*out, "</svg>"])


def _framed(title: str, x_name: str, y_name: str, sx: Scale, sy: Scale, marks: Sequence[str]) -> str:
    out = [f'<svg {_BOX} viewBox="0 0 400 300" width="400">']
    out.append(f'<text x="220" y="16" text-anchor="middle" font-size="13">{escape(title)}</text>')
    out += marks
    out.append('<rect x="60" y="40" width="320" height="210" fill="none" stroke="#999"/>')
    out += [
        f'<text x="{60 + p * 320:.0f}" y="264" text-anchor="middle">{escape(label)}</text>' for p, label in sx.marks()
    ]
    out += [f'<text x="56" y="{254 - p * 210:.0f}" text-anchor="end">{escape(label)}</text>' for p, label in sy.marks()]
    out.append(f'<text x="220" y="284" text-anchor="middle">{escape(x_name)}</text>')
    out.append(f'<text x="12" y="34">{escape(y_name)}</text>')
    return "\n".join([*out, "</svg>"])


def _shade(good: float) -> str:
    light = int(210 - 170 * max(0.0, min(1.0, good)))
    return f"rgb({light},{light + 20 if light < 235 else 255},{min(255, light + 60)})"


def _heat(z: float) -> str:
    z = max(0.0, min(1.0, z))
    return f"rgb({int(40 + 205 * z)},{int(90 + 130 * z)},{int(160 + 60 * (1 - z) - 60 * z)})"
