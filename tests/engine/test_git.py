"""A git that is none, or says what nobody can read, is told or passed over: it is no fault in Lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.labs import TestLab


@pytest.mark.parametrize("body", ["printf '\\377\\376\\200'", "echo '[{}]'", "exit 77", "kill -9 $$"])
def test_a_false_git(tmp_path: Path, body: str) -> None:
    lab = TestLab.make(tmp_path / "lab", {"file/a": f"path: {tmp_path}/a\ncontent: x\n"})
    lab.git("init", "-q")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "x")
    tool = tmp_path / "bin/git"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    for words in (("plan",), ("apply", "--yes"), ("plan", "--against", "HEAD")):
        ran = lab.run(*words, env={"PATH": f"{tool.parent}:/usr/bin:/bin"})
        assert ran.code in (0, 1), ran
        assert "fault in Lab" not in ran.err, ran
        assert "Traceback" not in ran.err, ran


def test_a_head_that_is_no_text(tmp_path: Path) -> None:
    lab = TestLab.make(tmp_path / "lab", {"file/a": f"path: {tmp_path}/a\ncontent: x\n"})
    lab.git("init", "-q")
    (lab.root / ".git/HEAD").write_bytes(b"\xff\xfe\n")
    ran = lab.run("plan")
    assert "fault in Lab" not in ran.err, ran
