"""Plot: curves and bars as SVG text, with nothing but the standard library. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#2f6db3", "#c8553d", "#3d8b5f", "#8a5aa8", "#b08a2e", "#4aa3a2", "#a83d6b", "#5c6b73")
"""Told apart by people with any colour vision when drawn with their markers."""

Points = Sequence[tuple[float, float]]


def curves(title: str, series: Mapping[str, Points], *, width: int = 640, height: int = 300) -> str:
    """A line per series over its steps, one `<path data-series=…>` each; at most 2,000 points are drawn of one."""
    drawn = {n: thin([(x, y) for x, y in p if math.isfinite(y)]) for n, p in series.items()}
    every = [p for points in drawn.values() for p in points]
    if not every:
        return ""
    x0, x1 = _range([x for x, _ in every])
    y0, y1 = _range([y for _, y in every])
    left, top, right, bottom = 64, 28, width - 12, height - 30 - 16 * ((len(drawn) + 2) // 3)

    def at(x: float, y: float) -> str:
        return (
            f"{left + (x - x0) / (x1 - x0) * (right - left):.1f},{bottom - (y - y0) / (y1 - y0) * (bottom - top):.1f}"
        )

    out = _open(title, width, height)
    for tick in ticks(y0, y1):
        y = at(x0, tick).partition(",")[2]
        out.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y}" text-anchor="end" dominant-baseline="middle">{number(tick)}</text>')
    for tick in ticks(x0, x1):
        x = at(tick, y0).partition(",")[0]
        out.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{number(tick)}</text>')
    for n, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[n % len(COLOURS)]
        if points:
            line = " L".join(at(x, y) for x, y in points)
            out.append(f'<path data-series="{escape(name, True)}" d="M{line}" fill="none" stroke="{colour}"/>')
        if len(points) == 1:
            x, y = at(*points[0]).split(",")
            out.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        lx, ly = left + (n % 3) * (right - left) / 3, bottom + 32 + 16 * (n // 3)
        out.append(f'<rect x="{lx:.0f}" y="{ly - 9:.0f}" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{lx + 14:.0f}" y="{ly:.0f}">{escape(name[:28])}</text>')
    return "\n".join([*out, "</svg>"])


def bars(title: str, values: Mapping[str, float], *, width: int = 640) -> str:
    """A bar per name, its value written out."""
    known = {n: v for n, v in values.items() if math.isfinite(v)}
    if not known:
        return ""
    top = max(max(known.values()), 0.0)
    low = min(min(known.values()), 0.0)
    span = (top - low) or 1.0
    left, right = 200, width - 90
    out = _open(title, width, 40 + 22 * len(known))
    for n, (name, value) in enumerate(known.items()):
        y = 34 + 22 * n
        start = left + (0 - low) / span * (right - left)
        length = value / span * (right - left)
        x = start if length >= 0 else start + length
        out.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name[:30])}</text>')
        out.append(
            f'<rect data-series="{escape(name, True)}" x="{x:.1f}" y="{y}" width="{abs(length):.1f}" height="14" '
            f'fill="{COLOURS[n % len(COLOURS)]}"/>'
        )
        out.append(f'<text x="{max(x + abs(length), start) + 5:.1f}" y="{y + 11}">{number(value)}</text>')
    return "\n".join([*out, "</svg>"])


def thin(points: Points, most: int = 2000) -> list[tuple[float, float]]:
    """At most `most` points that keep the lowest and highest of every stretch, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    out = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        out += sorted(ends)
    return out


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`."""
    raw = (high - low) / about
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(s * scale for s in (1, 2, 5, 10) if s * scale >= raw)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]


def number(value: float) -> str:
    """A figure as people read it: four significant digits."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    return low, high


def _open(title: str, width: int, height: int) -> list[str]:
    box = f'viewBox="0 0 {width} {height}" width="{width}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="11" fill="#333">',
        f'<text x="{width / 2:.0f}" y="16" text-anchor="middle" font-size="13">{escape(title)}</text>',
    ]
