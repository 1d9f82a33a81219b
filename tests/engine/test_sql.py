"""One reading view joins what Lab and MLflow keep. Proves S3-IV-1 but for migrations of old states."""

from __future__ import annotations

import json
from pathlib import Path

from tests.labs import TestLab

FILES = {"file/a": "path: ROOT/a.txt\ncontent: a\n", "file/b": "path: ROOT/b.txt\ncontent: b\n"}


def test_resources_and_generations_can_be_asked(tmp_path: Path) -> None:
    """Rows equal what the verbs print."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    rows = json.loads(lab("sql", "--json", "select address, kind, generation from resources order by address").out)
    assert rows == [
        {"address": "file.a", "kind": "file", "generation": 1},
        {"address": "file.b", "kind": "file", "generation": 1},
    ]
    assert "done" in lab("sql", "select number, outcome from generations").out


def test_nothing_can_be_written_and_a_bad_query_names_the_views(tmp_path: Path) -> None:
    """A query that writes, or is none, is a problem."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    assert lab("sql", "delete from ledger.resource").code == 1
    ran = lab("sql", "select * from nosuch")
    assert ran.code == 1
    assert "resources" in ran.err
    assert lab("state", "list").out == "file.a\nfile.b\n"
