"""A log of JSON lines that a crash cut short or a disk spoiled: the rest of it is read, and the next line is whole.

Proves S3-VI.4-1.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.app import backup, maintenance
from lab.app.lab import Lab
from lab.core.problem import Problems
from tests.labs import TestLab

SPOILED = [b"", b"{", b"{}\n", b"[]\n", b"null\n", b'{"what": "kept"}\n', b"\xd7\xff\n", os.urandom(200), b"[" * 9999]


@pytest.mark.parametrize("spoiled", SPOILED, ids=range(len(SPOILED)))
def test_a_spoiled_log_of_a_backup_or_of_upkeep(tmp_path: Path, spoiled: bytes) -> None:
    lab = Lab.find(TestLab.make(tmp_path).root)
    backup.note(lab, "b", "kept")
    maintenance.note(lab, "review", "done")
    for log in (lab.state / "backup/b.log", lab.state / "maintenance/log.jsonl"):
        with log.open("ab") as f:
            f.write(spoiled)
    backup.note(lab, "b", "check")
    maintenance.note(lab, "again", "done")
    assert [e["what"] for e in backup.log(lab, "b")] == ["kept", "check"]
    assert [e["task"] for e in maintenance.log(lab)] == ["review", "again"]


def test_spoiled_settings_are_told_and_written_again(tmp_path: Path) -> None:
    lab = TestLab.make(tmp_path, {"maintenance/host": "tasks: {review docs: quarterly}\n"})
    assert lab("apply", "--yes").code == 0
    path = lab.root / "state/maintenance/settings.json"
    whole = json.loads(path.read_text())
    path.write_bytes(b"\xd7")
    with pytest.raises(Problems, match=r"settings\.json cannot be read"):
        maintenance.settings(Lab.find(lab.root))
    for said in (b"[]", b"{}"):
        path.write_bytes(said)
        with pytest.raises(Problems, match="it holds no settings"):
            maintenance.settings(Lab.find(lab.root))
    assert lab("apply", "--yes").code == 0
    assert json.loads(path.read_text()) == whole
