"""Whatever standard input, output and error are, work is done or refused in words; nothing opens in their place.

Proves S3-VI.4-1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.labs import REPO, TestLab

FILES = {"file/one": "path: ROOT/out/one\ncontent: ⏎ one\n", "file/two": "path: ROOT/out/two\ncontent: two\n"}
DONE = {"PYTHONPATH": str(REPO), "LC_ALL": "C.UTF-8"}


def shell(lab: TestLab, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`lab` in a shell's line, in which `$lab` is the command."""
    told = {**os.environ, **DONE, "lab": f"{sys.executable} -m lab -C {lab.root}", **env}
    return subprocess.run(["sh", "-c", line], env=told, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "where", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "--json-events 2>/dev/full", "| true", ">/dev/full"]
)
def test_an_apply_is_done_or_refused_in_words(tmp_path: Path, where: str) -> None:
    lab = TestLab.make(tmp_path, FILES)
    done = shell(lab, f"$lab apply --yes {where}")
    assert "Traceback" not in done.stderr
    assert "fault in Lab" not in done.stderr
    assert (done.returncode == 1) == (where == ">/dev/full")
    if done.returncode:
        assert "the disk is full: <stdout>" in done.stderr
        assert lab("apply", "--yes").code == 0
    assert "No changes" in lab("plan").out
    assert lab("state", "check").code == 0


def test_an_answer_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    """A plan as JSON on a full disk: said where it can be."""
    done = shell(TestLab.make(tmp_path, FILES), "$lab plan --json >/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("✗ the disk is full: <stdout>")


def test_a_terminal_that_knows_no_such_letter(tmp_path: Path) -> None:
    lab = TestLab.make(tmp_path, FILES)
    done = shell(lab, "$lab apply --yes && $lab show file.one --json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert json.dumps("⏎")[1:-1] in done.stdout
