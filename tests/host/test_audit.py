"""The audit log only grows: a line that was altered, taken out or moved is found. Proves S2-3.9-2 (the log itself)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.adapters import audit


def test_every_entry_is_kept_in_order_whoever_writes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: audit.append(path, "ann" if n % 2 else "ben", "run", n=n), range(60)))
    assert audit.verify(path) == (60, "")
    assert len(list(audit.entries(path, "ann"))) == 30
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["alter", "remove", "swap", "insert"])
def test_tampering_is_found_at_its_line(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "audit.jsonl"
    for n in range(6):
        audit.append(path, "ann", "run", n=n)
    lines = path.read_text().splitlines()
    if harm == "alter":
        lines[3] = json.dumps({**json.loads(lines[3]), "who": "ben"})
    elif harm == "remove":
        del lines[3]
    elif harm == "swap":
        lines[3], lines[4] = lines[4], lines[3]
    else:
        lines.insert(3, lines[1])
    path.write_text("\n".join(lines) + "\n")
    sound, wrong = audit.verify(path)
    assert sound == 3
    assert wrong.startswith("line 4")


def test_a_log_that_was_cut_at_its_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for n in range(3):
        audit.append(path, "ann", "run", n=n)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:2]))
    assert audit.verify(path) == (2, "its end was cut off: the last entry that was written is not there")
    path.write_text("")
    assert audit.verify(path)[0] == 0
    assert audit.verify(path)[1]


def test_a_long_entry_is_cut_and_a_torn_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit.append(path, "ann", "run", text="x" * 200_000)
    assert path.stat().st_size < 1000
    with path.open("ab") as f:
        f.write(b'{"at": 1, "who"')
    audit.append(path, "ann", "run")
    assert audit.verify(path) == (1, "line 2 is no whole entry")
    assert len(list(audit.entries(path))) == 2
