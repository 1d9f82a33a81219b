"""Rows: what is in a data file, whatever its format, as dictionaries; and rows as a file."""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.core.problem import problem

FORMATS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".txt": "text", ".md": "text", ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord", ".png": "images", ".jpg": "images", ".jpeg": "images", ".gif": "images",
}  # fmt: skip
ROWED = ("csv", "tsv", "jsonl", "json", "parquet", "arrow", "text", "images", "tfrecord")
_MAGIC = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\x89PNG", "images"), (b"\xff\xd8\xff", "images"))

Row = dict[str, Any]


def sniff(files: Mapping[str, Path]) -> str:
    """The one format of these files by their first bytes and names; `files` where they have none in common. Reads."""
    found = {_one(name, path) for name, path in files.items() if not name.startswith(("README", "LICENSE", "."))}
    return found.pop() if len(found) == 1 else "files"


def _one(name: str, path: Path) -> str:
    with open(path, "rb") as f:
        head = f.read(8)
    for magic, format in _MAGIC:
        if head.startswith(magic):
            return format
    return FORMATS.get(Path(name).suffix.lower(), "files")


def read(path: Path, format: str, name: str = "") -> Iterator[Row]:
    """The rows of a file in order; raises Problems where it is not of that format. Reads."""
    label = name or path.name
    try:
        yield from _READ[format](path, label)
    except (UnicodeDecodeError, csv.Error, struct.error) as e:
        raise problem(f"{label} is no {format}", why=str(e), do="declare its `format`, or mend the file") from e


def _csv(path: Path, label: str, delimiter: str = ",") -> Iterator[Row]:
    with open(path, newline="", encoding="utf-8-sig") as f:
        reader = csv.reader(f, delimiter=delimiter, strict=True)
        head = next(reader, None)
        if head is None:
            return
        for row in reader:
            if not row:
                continue
            if len(row) != len(head):
                raise problem(
                    f"{label}:{reader.line_num} has {len(row)} cells, not {len(head)}", do="mend the line, or quote it"
                )
            yield {k: value(v) for k, v in zip(head, row, strict=True)}


def _jsonl(path: Path, label: str) -> Iterator[Row]:
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f, 1):
            if line.strip():
                yield _object(line, f"{label}:{n}")


def _json(path: Path, label: str) -> Iterator[Row]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise problem(f"{label} is no JSON", why=str(e)) from e
    for one in found if isinstance(found, list) else [found]:
        yield one if isinstance(one, dict) else {"value": one}


def _object(line: str, where: str) -> Row:
    try:
        found = json.loads(line)
    except ValueError as e:
        raise problem(f"{where} is no JSON", why=str(e), do="mend the line") from e
    return found if isinstance(found, dict) else {"value": found}


def _parquet(path: Path, label: str) -> Iterator[Row]:
    parquet = _arrow_library("pyarrow.parquet", label)
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _arrow(path: Path, label: str) -> Iterator[Row]:
    feather = _arrow_library("pyarrow.feather", label)
    yield from feather.read_table(path).to_pylist()


def _arrow_library(module: str, label: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise problem(f"{label} needs pyarrow to be read", do="install `llm-lab[track]`") from e


def _text(path: Path, label: str) -> Iterator[Row]:
    with open(path, encoding="utf-8") as f:
        for line in f:
            yield {"text": line.rstrip("\n")}


def _image(path: Path, label: str) -> Iterator[Row]:
    with open(path, "rb") as f:
        head = f.read(32)
    size: tuple[int, int] | None = None
    if head.startswith(b"\x89PNG") and head[12:16] == b"IHDR":
        size = struct.unpack(">II", head[16:24])
    yield {
        "file": label,
        "label": Path(label).parent.name,
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "bytes": path.stat().st_size,
    }


def _tfrecord(path: Path, label: str) -> Iterator[Row]:
    """One row per record: its length. The payload is protobuf, which Lab does not read."""
    with open(path, "rb") as f:
        while head := f.read(12):
            (length,) = struct.unpack("<Q", head[:8])
            body = f.read(length + 4)
            if len(body) != length + 4:
                raise problem(f"{label} is torn", why="its last record is shorter than it says", do="fetch it again")
            yield {"length": length}


_READ = {
    "csv": _csv,
    "tsv": lambda p, n: _csv(p, n, "\t"),
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "arrow": _arrow,
    "text": _text,
    "images": _image,
    "tfrecord": _tfrecord,
}


def value(text: str) -> Any:
    """A cell of text as what it plainly is: empty is None, `3` an int, `3.5` a float, true/false a bool. Pure."""
    if text == "":
        return None
    if text in ("true", "True", "false", "False"):
        return text in ("true", "True")
    first = text.lstrip("+-")[:1]
    if first.isdigit() or first == ".":
        plain = text.lstrip("+-")
        if len(plain) > 1 and plain[0] == "0" and plain[1].isdigit():
            return text
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def write(path: Path, rows: Iterable[Row], format: str, columns: Sequence[str] = ()) -> int:
    """The rows are in a file of `csv`, `tsv`, `jsonl`, `text` or `parquet`; how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "parquet":
        listed = list(rows)
        table = _arrow_library("pyarrow", path.name).Table.from_pylist(listed)
        _arrow_library("pyarrow.parquet", path.name).write_table(table, path)
        return len(listed)
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = None
        for row in rows:
            count += 1
            if format in ("csv", "tsv"):
                if writer is None:
                    writer = csv.DictWriter(
                        f, list(columns or row), delimiter="\t" if format == "tsv" else ",", lineterminator="\n"
                    )
                    writer.writeheader()
                writer.writerow({k: "" if v is None else v for k, v in row.items()})
            elif format == "text":
                f.write(f"{row.get('text', '')}\n")
            else:
                f.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return count
