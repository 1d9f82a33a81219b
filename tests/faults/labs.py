"""The deeds that are interrupted: making, changing and removing a small lab."""

from __future__ import annotations

from pathlib import Path

from tests.faults.campaign import Deed


def files(source: Path | None = None) -> dict[str, str]:
    """Light files of every sort, in a chain and beside it, and a model and a dataset where there is a source."""
    found = {
        "file/plain": "path: ROOT/out/plain\ncontent: plain\n",
        "file/deep": "path: ROOT/out/a/b/c/deep\ncontent: deep\nmode: '0600'\n",
        "file/bytes": "path: ROOT/out/bytes\ncontent: AAECAwQ=\nencoding: base64\n",
        "file/after": "path: ROOT/out/after\ncontent: after\nneeds: [file.plain]\n",
    }
    if source:
        found["model/tiny"] = f"path: {source}\nplace: copy\n"
        found["dataset/rows"] = f"path: {source.parent}/rows\n"
    return found


def changed(source: Path | None = None) -> dict[str, str]:
    """The same with one file changed, one moved to another path, one gone, one renamed and one new."""
    found = files(source)
    found["file/plain"] = "path: ROOT/out/plain\ncontent: changed\n"
    found["file/deep"] = "path: ROOT/out/elsewhere/deep\ncontent: deep\nmode: '0600'\n"
    del found["file/bytes"]
    found["file/new"] = "path: ROOT/out/new\ncontent: new\n"
    return found


def deeds(source: Path | None = None) -> dict[str, Deed]:
    """What is interrupted, by name."""
    return {
        "create": Deed("create", {}, files(source)),
        "change": Deed("change", files(source), changed(source)),
        "destroy": Deed("destroy", files(source), files(source), ("destroy", "--all", "--yes", "--json-events")),
    }
