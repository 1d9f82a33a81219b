"""A lab with two stages: a file and a model each, the model's bytes from a folder of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.labs import TestLab

A, B = b"one " * 500, b"two " * 700


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


FILES = {
    "file/note": 'path: "ROOT/out/${lab.stage}/note.txt"\ncontent: hello\nmode: "0600"\n',
    "model/m": f"url: file://ROOT/weights/a.txt\nsha256: {sha256(A)}\n",
    "stage/test": "# @package _global_\n# What is tried.\n"
    f"model:\n  m: {{url: 'file://ROOT/weights/b.txt', sha256: {sha256(B)}}}  # two\n"
    "file: {note: {content: tried}}\n",
    "stage/prod": "# @package _global_\n# What is relied on.\nvars: {calm: true}\n",
}


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder → its hash."""
    return {str(p.relative_to(folder)): sha256(p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def lab(tmp_path: Path) -> TestLab:
    """The lab, nothing applied."""
    made = TestLab.make(tmp_path, FILES)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.txt").write_bytes(A)
    (tmp_path / "weights/b.txt").write_bytes(B)
    return made
