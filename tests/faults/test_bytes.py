"""Whatever bytes lie in a plan, a ledger, a lock or a model header: a problem in words, soon, and nothing written.

Real files are cut, flipped and filled with noise; `tests/declare/test_any_bytes.py` does the same to declarations.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.problem import Problems
from tests.labs import TestLab


def harmed(data: bytes, count: int, seed: int = 3) -> Iterator[bytes]:
    """The same bytes, harmed in many ways."""
    dice = random.Random(seed)
    for n in range(count):
        found = bytearray(data)
        way = n % 5
        at = dice.randrange(len(data))
        if way == 0:
            found = found[:at]
        elif way == 1:
            for _ in range(dice.randint(1, 8)):
                found[dice.randrange(len(found))] = dice.randrange(256)
        elif way == 2:
            found[at : at + 64] = dice.randbytes(64)
        elif way == 3:
            found[at:at] = dice.randbytes(dice.randint(1, 200))
        else:
            # Numbers in headers near the start are the interesting ones: lengths, counts, offsets.
            at = dice.randrange(min(len(found) - 8, 96))
            found[at : at + 8] = struct.pack("<Q", dice.choice([0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]))
        yield bytes(found)


@pytest.fixture
def lab(quick: Path) -> TestLab:
    """A lab that was applied and then changed."""
    files = {f"file/f{n}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(4)}
    lab = TestLab.make(quick / "lab", files)
    assert lab("apply", "--yes").code == 0
    lab.write("conf/file/f1.yaml", "path: ROOT/out/1\ncontent: changed\n")
    return lab


def test_any_saved_plan(lab: TestLab) -> None:
    """A harmed plan is refused, or does exactly what the whole one would have done; it never does anything else."""
    plan = lab.root / "plan.json"
    assert lab("plan", "--out", str(plan)).code == 0
    whole = plan.read_bytes()
    cases = [*harmed(whole, 25), b"", b"null", b"[]", b"{}", b'"x"', b"[" * 50_000, b"\xff\xfe", b'{"format": 1e999}']
    value = json.loads(whole)
    for key in value:
        for odd in (None, [], {}, "x", -1, [None], [{}]):
            cases.append(json.dumps({**value, key: odd}).encode())
    for data in cases:
        plan.write_bytes(data)
        ran = lab("apply", str(plan), "--yes")
        assert ran.code in (0, 1), data[:200]
        assert "fault in Lab" not in ran.err + ran.out
        assert (lab.root / "out/1").read_text() == ("text 1" if ran.code else "changed"), data[:200]
        if ran.code == 0:
            lab.write("conf/file/f1.yaml", "path: ROOT/out/1\ncontent: text 1\n")
            assert lab("apply", "--yes").code == 0
            lab.write("conf/file/f1.yaml", "path: ROOT/out/1\ncontent: changed\n")


def test_any_ledger(lab: TestLab) -> None:
    """A harmed ledger is a problem with a way out, or harmless; nothing that was made is touched."""
    ledger = lab.root / "state/ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = ledger.read_bytes()
    refused = 0
    for data in harmed(whole, 60):
        ledger.write_bytes(data)
        for tail in ("-wal", "-shm"):
            ledger.with_name(ledger.name + tail).unlink(missing_ok=True)
        begun = time.perf_counter()
        for words in (("plan",), ("state", "check"), ("history",), ("state", "list")):
            ran = lab(*words)
            refused += ran.code == 1
            assert ran.code in (0, 1)
            assert "fault in Lab" not in ran.err
        assert time.perf_counter() - begun < 20
        assert (lab.root / "out/1").read_text() == "text 1"
    assert refused > 20


def test_any_lock_of_the_writer(lab: TestLab) -> None:
    """Noise in the writer's lock stops nobody and is no crash."""
    for data in (
        b"\x00" * 9,
        b"[]",
        b"null",
        b'{"pid": "x"}',
        b'{"host": 3, "since": "x"}',
        b"\xff\xfe",
        b'"x"',
        b"{" * 9999,
    ):
        (lab.root / "state/lock").write_bytes(data)
        ran = lab("apply", "--yes")
        assert ran.code in (0, 1), data
        assert "fault in Lab" not in ran.err
        assert lab("state", "unlock").code in (0, 1)
    assert lab("apply", "--yes").code == 0


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_any_header(tmp_path: Path, kind: str) -> None:
    """A harmed model file is read, or refused in words; in a second, without reading or taking what it claims to be."""
    from lab.adapters import headers
    from tests.models import make

    folder = tmp_path / "model"
    if kind == "gguf":
        folder.mkdir()
        make.gguf(folder / "tiny.gguf")
        file = folder / "tiny.gguf"
    else:
        make.safetensors(folder)
        file = folder / "model.safetensors"
    whole = file.read_bytes()
    for data in harmed(whole, 300):
        file.write_bytes(data)
        begun = time.perf_counter()
        with contextlib.suppress(Problems):
            headers.read(folder)
        assert time.perf_counter() - begun < 5
