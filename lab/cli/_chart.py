"""The chart of a forecast: peak memory over context, one line per type, as SVG."""

from __future__ import annotations

from html import escape

from lab.app.forecast import Table

GIB = 2**30
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568", "#975a16", "#285e61", "#9b2c2c")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 70, 30, 150, 50


def svg(t: Table) -> str:
    """The chart as text. Pure."""
    known = [(row[0].use.label(), [n.peak.value / GIB if n.peak else None for n in row]) for row in t.rows]
    values = [v for _, line in known for v in line if v is not None]
    top = max([*values, (t.limit or 0) / GIB, 1.0]) * 1.08
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    steps = max(len(t.contexts) - 1, 1)

    def x(i: int) -> float:
        return LEFT + wide * i / steps

    def y(v: float) -> float:
        return TOP + high * (1 - v / top)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(t.model)} on {escape(t.host.name)}: peak memory</text>',
    ]
    for k in range(5):
        v = top * k / 4
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e2e8f0"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.0f} GiB</text>')
    for i, c in enumerate(t.contexts):
        label = f"{c // 1024}k" if c % 1024 == 0 else str(c)
        out.append(f'<text x="{x(i):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{label}</text>')
    if t.limit:
        at = y(t.limit / GIB)
        out.append(f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{at:.1f}" y2="{at:.1f}" stroke="#c53030"/>')
        out.append(f'<text x="{LEFT + 4}" y="{at - 5:.1f}" fill="#c53030">limit {t.limit / GIB:.0f} GiB</text>')
    for n, (label, line) in enumerate(known):
        colour = COLOURS[n % len(COLOURS)]
        points = [(x(i), y(v)) for i, v in enumerate(line) if v is not None]
        if not points:
            continue
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        out.append(f'<rect x="{LEFT + wide + 16}" y="{TOP + n * 18}" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + wide + 32}" y="{TOP + n * 18 + 9}">{escape(label)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
