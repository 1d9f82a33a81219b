"""The map from requirements to tests is read from the tests themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import rows


def test_each_id_leads_to_the_test_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's docstring, a class's and a function's; not a comment, not a string. What no test names is told."""
    (tmp_path / "tests/deep").mkdir(parents=True)
    (tmp_path / "tests/deep/test_x.py").write_text(
        '"""Proves DC-1, S3-III-1."""\n\n# DC-2\nNAME = "DC-3"\n\n'
        'class TestA:\n    """S0-US-010-1"""\n\n    def test_a(self) -> None:\n        """S2-1.2-2: it is so."""\n'
    )
    assert rows.tried(tmp_path / "tests") == {
        "DC-1": ["tests/deep/test_x.py"],
        "S0-US-010-1": ["tests/deep/test_x.py"],
        "S2-1.2-2": ["tests/deep/test_x.py::test_a"],
        "S3-III-1": ["tests/deep/test_x.py"],
    }
    assert "tests/envs/test_lock.py::test_conda_lock_and_rattler_read_our_lock" in rows.tried()["DC-6"]
    (tmp_path / "rows.yaml").write_text("- {id: DC-6, scope: core}\n- {id: S9-1-1, scope: stretch}\n")
    assert rows.main([str(tmp_path / "rows.yaml")]) == 0
    (tmp_path / "rows.yaml").write_text("- {id: DC-6, scope: core}\n- {id: S9-1-1, scope: core}\n")
    capsys.readouterr()
    assert rows.main([str(tmp_path / "rows.yaml")]) == 1
    assert "1 of the core are not: S9-1-1" in capsys.readouterr().out
