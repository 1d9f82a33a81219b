"""graph: which resources need which."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from lab.app.lab import Lab
from lab.core.address import Address


@dataclass(frozen=True, slots=True)
class Drawn:
    """The lab's graph: every resource with its rank (the longest way to it), and every need."""

    ranks: dict[Address, int]
    edges: tuple[tuple[Address, Address], ...]
    """(needed, needing)."""


def graph(lab: Lab) -> Drawn:
    """The graph of what is declared. Pure but for reading the lab."""
    ranks: dict[Address, int] = {}
    for address in lab.declared.order:
        ranks[address] = max((ranks[n] + 1 for n in lab.declared.needs[address] if n in ranks), default=0)
    edges = [(n, a) for a in lab.declared.order for n in lab.declared.needs[a] if n in ranks]
    return Drawn(ranks, tuple(edges))


def mermaid(drawn: Drawn) -> str:
    """As a Mermaid flowchart. Pure."""
    ids = {a: f"n{i}" for i, a in enumerate(drawn.ranks)}
    nodes = [f'  {ids[a]}["{a}"]' for a in drawn.ranks]
    return "\n".join(["flowchart LR", *nodes, *(f"  {ids[a]} --> {ids[b]}" for a, b in drawn.edges)])


def dot(drawn: Drawn) -> str:
    """As Graphviz. Pure."""
    nodes = [f'  "{a}";' for a in drawn.ranks]
    edges = [f'  "{a}" -> "{b}";' for a, b in drawn.edges]
    return "\n".join(["digraph lab {", "  rankdir=LR; node [shape=box];", *nodes, *edges, "}"])


_COLOURS = ("#2b6cb0", "#2f855a", "#c05621", "#6b46c1", "#b83280", "#975a16", "#285e61", "#4a5568")
_WIDTH, _HEIGHT, _GAP, _ROW = 250, 26, 70, 36


def svg(drawn: Drawn) -> str:
    """As a picture: ranks from left to right, a colour a kind. Pure."""
    kinds = sorted({a.kind for a in drawn.ranks})
    columns: dict[int, list[Address]] = {}
    for address, rank in drawn.ranks.items():
        columns.setdefault(rank, []).append(address)
    place = {
        a: (20 + rank * (_WIDTH + _GAP), 20 + row * _ROW)
        for rank, column in columns.items()
        for row, a in enumerate(sorted(column))
    }
    wide = 40 + len(columns) * (_WIDTH + _GAP) - _GAP
    high = 40 + max(map(len, columns.values()), default=1) * _ROW
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="monospace" font-size="12">'
    ]
    out.append(f'<rect width="{wide}" height="{high}" fill="#ffffff"/>')
    for a, b in drawn.edges:
        (x1, y1), (x2, y2) = place[a], place[b]
        x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        half = (x1 + x2) // 2
        out.append(f'<path d="M{x1},{y1} C{half},{y1} {half},{y2} {x2},{y2}" fill="none" stroke="#a0aec0"/>')
    for address, (x, y) in place.items():
        colour = _COLOURS[kinds.index(address.kind) % len(_COLOURS)]
        out.append(
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="{colour}" fill-opacity="0.12"'
            f' stroke="{colour}"/><text x="{x + 8}" y="{y + 17}">{escape(address[:33])}</text>'
        )
    return "\n".join([*out, "</svg>"])
