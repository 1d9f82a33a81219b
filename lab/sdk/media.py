"""Media: files, tables, figures, images and pages, kept among the run's artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.sdk.artifact import Artifact
from lab.sdk.run import current


def log_artifact(path: str | os.PathLike[str] | Artifact, name: str = "") -> Path:
    """A copy of a file or folder among the artifacts, or a typed artifact with its manifest; returns its place."""
    import shutil

    if isinstance(path, Artifact):
        place = _place(path.name)
        made = path.write(place.parent)
        current().event("tag", name=f"artifact.{path.name}", value=f"{made['type']} {made['digest']}")
        return _said(place.with_name(f"{place.name}.artifact.json"), path.type)
    source = Path(path)
    target = _place(name or source.name)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
    return _said(target, "artifact")


def save(pattern: str) -> list[Path]:
    """The files that match a pattern, each among the artifacts under its own name."""
    import glob

    return [log_artifact(p) for p in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(p)]


def log_table(
    name: str, rows: Iterable[Mapping[str, Any] | Sequence[Any]], columns: Sequence[str] | None = None
) -> Path:
    """A table as `NAME.json` in MLflow's own table shape (`{columns, data}`) and as `NAME.csv`."""
    listed = [dict(r) if isinstance(r, Mapping) else list(r) for r in rows]
    if columns is None:
        keys: dict[str, None] = {}
        for row in listed:
            keys.update(dict.fromkeys(row if isinstance(row, dict) else map(str, range(len(row)))))
        columns = list(keys)
    data = [[r.get(c) for c in columns] if isinstance(r, dict) else list(r) for r in listed]
    path = _place(f"{name.removesuffix('.json')}.json")
    path.write_text(json.dumps({"columns": list(columns), "data": data}, default=str), encoding="utf-8")
    import csv

    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        writer.writerows(data)
    return _said(path, "table")


def log_image(name: str, image: Any, step: int | None = None) -> Path:
    """An image: a path, a Pillow image, a matplotlib figure, or an array (height × width [× 3 or 4], 0–255 or 0–1)."""
    stem, _, suffix = name.partition(".")
    path = _place(f"{stem}{'' if step is None else f'_{step:06d}'}.{suffix or 'png'}")
    if isinstance(image, (str, os.PathLike)):
        path.write_bytes(Path(image).read_bytes())
    elif hasattr(image, "savefig"):
        image.savefig(path)
    elif hasattr(image, "save"):
        image.save(path)
    else:
        _array(image, path)
    return _said(path, "image")


def log_figure(name: str, figure: Any) -> Path:
    """A matplotlib figure as PNG, or a plotly figure as a page."""
    if hasattr(figure, "write_html"):
        path = _place(f"{name.partition('.')[0]}.html")
        figure.write_html(str(path))
        return _said(path, "figure")
    return log_image(name, figure)


def log_html(name: str, html: str) -> Path:
    """A page."""
    path = _place(f"{name.removesuffix('.html')}.html")
    path.write_text(html, encoding="utf-8")
    return _said(path, "html")


def _array(values: Any, path: Path) -> None:
    """An array as PNG, written by hand: neither Pillow nor matplotlib is needed."""
    import struct
    import zlib

    rows = values.tolist() if hasattr(values, "tolist") else values
    flat = [v for row in rows for p in row for v in (p if isinstance(p, (list, tuple)) else (p,))]
    scale = 255 if flat and max(flat) <= 1 and any(isinstance(v, float) for v in flat) else 1
    first = rows[0][0]
    channels = len(first) if isinstance(first, (list, tuple)) else 1
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    raw = b"".join(
        b"\0"
        + bytes(min(255, max(0, round(v * scale))) for p in row for v in (p if isinstance(p, (list, tuple)) else (p,)))
        for row in rows
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _place(name: str) -> Path:
    base = (current().folder / "artifacts").resolve()
    path = (base / name).resolve()
    if base not in path.parents:
        raise ValueError(f"{name!r} would lie outside the run's artifacts")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _said(path: Path, what: str) -> Path:
    base = (current().folder / "artifacts").resolve()
    current().event("artifact", name=str(path.relative_to(base)), what=what)
    return path
