"""The pictures of a sweep as PNG files, by matplotlib where it is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lab.runs.sweep_plot import Scale, names, scale
from lab.runs.sweep_ports import Ended
from lab.runs.sweep_summary import best


def draw(
    folder: Path, objective: Mapping[str, str], trials: Sequence[Ended], importance: Mapping[str, Mapping[str, float]]
) -> list[Path]:
    """history, importance, contour, parallel and front, as far as they apply; nothing without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return []
    done = [t for t in trials if t.state == "complete" and t.values]
    made: list[Path] = []

    def picture(name: str, paint: Callable[[Any], None]) -> None:
        figure = Figure(figsize=(6.4, 4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.add_subplot())
        path = folder / f"{name}.png"
        figure.savefig(path)
        made.append(path)

    if not done:
        return []
    for at, (metric, goal) in enumerate(objective.items()):
        picture(f"history_{metric}", partial(_history, done=done, at=at, metric=metric, goal=goal))
        if weights := importance.get(metric):
            picture(f"importance_{metric}", partial(_bars, weights=weights))
        numeric = [n for n in (importance.get(metric) or names(done)) if scale(done, n) is not None]
        if len(numeric) >= 2 and len(done) >= 4:
            picture(f"contour_{metric}", partial(_contour, done=done, x=numeric[0], y=numeric[1], at=at, metric=metric))
        picture(f"parallel_{metric}", partial(_parallel, done=done, metric=metric, at=at, goal=goal))
    if len(objective) == 2:
        picture("front", partial(_front, done=done, objective=objective))
    return made


def _history(ax: Any, done: Sequence[Ended], at: int, metric: str, goal: str) -> None:
    pick = max if goal == "max" else min
    ax.plot([t.number for t in done], [t.values[at] for t in done], "o", ms=3, alpha=0.6)
    so_far = [pick(t.values[at] for t in done[: i + 1]) for i in range(len(done))]
    ax.step([t.number for t in done], so_far, where="post")
    ax.set_xlabel("trial")
    ax.set_ylabel(metric)


def _bars(ax: Any, weights: Mapping[str, float]) -> None:
    ax.barh(list(weights)[::-1], list(weights.values())[::-1])
    ax.set_xlabel("importance")


def _contour(ax: Any, done: Sequence[Ended], x: str, y: str, at: int, metric: str) -> None:
    have = [t for t in done if x in t.params and y in t.params]
    xs, ys = [t.params[x] for t in have], [t.params[y] for t in have]
    values = [t.values[at] for t in have]
    marks = ax.scatter(xs, ys, c=values, cmap="viridis_r", edgecolors="k", zorder=3)
    with contextlib.suppress(ValueError, RuntimeError):  # all points on a line
        ax.tricontourf(xs, ys, values, levels=12, cmap="viridis_r", alpha=0.8)
    for name, put in ((x, ax.set_xscale), (y, ax.set_yscale)):
        found = scale(have, name)
        if found is not None and found.log:
            put("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.figure.colorbar(marks, label=metric)


def _grey(place: float, goal: str) -> str:
    """The better the darker."""
    return f"{0.15 + 0.7 * (1 - place if goal == 'max' else place):.2f}"


def _parallel(ax: Any, done: Sequence[Ended], metric: str, at: int, goal: str) -> None:
    axes = names(done)
    scales = [Scale([t.params[n] for t in done if n in t.params]) for n in axes]
    last = Scale([t.values[at] for t in done])
    for t in done:
        have = [(i, s(t.params[n])) for i, (n, s) in enumerate(zip(axes, scales, strict=True)) if n in t.params]
        have.append((len(axes), last(t.values[at])))
        ax.plot([p[0] for p in have], [p[1] for p in have], color=_grey(last(t.values[at]), goal), alpha=0.7)
    for i, s in enumerate([*scales, last]):
        ax.axvline(i, color="0.6", lw=0.8, zorder=0)
        for height, label in s.marks():
            ax.text(i + 0.03, height, label, fontsize=7, va="center")
    ax.set_xticks(range(len(axes) + 1), [*axes, metric], rotation=20)
    ax.set_xlim(-0.2, len(axes) + 0.5)
    ax.set_yticks([])


def _front(ax: Any, done: Sequence[Ended], objective: Mapping[str, str]) -> None:
    ax.plot([t.values[0] for t in done], [t.values[1] for t in done], "o", ms=3, alpha=0.4)
    ones = sorted(best(done, objective), key=lambda t: t.values[0])
    ax.plot([t.values[0] for t in ones], [t.values[1] for t in ones], "-o", ms=4)
    across, up = objective
    ax.set_xlabel(across)
    ax.set_ylabel(up)
