"""What is said of the tools that Lab joins is what its tests tried.

Proves S2-0-1, S2-8-3: each tool with its kinds and tests, and at least five that passed with the tool itself.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab import kinds
from lab.adapters.integrations import INTEGRATIONS, Integration, tried
from lab.app.integrations import page
from lab.declare.conf import known_kinds
from tests.labs import REPO, TestLab


@pytest.mark.parametrize("one", INTEGRATIONS, ids=lambda one: one.name)
def test_each_tool_names_kinds_adapters_and_tests_that_are_there(one: Integration) -> None:
    """A row that names something else would be a promise."""
    assert set(one.kinds) <= {*known_kinds(), "lab"}
    assert all(kinds.load(k) for k in one.kinds if k != "lab")
    assert one.adapters
    assert all((REPO / "lab" / a).is_file() for a in one.adapters)
    assert one.tests
    for file, _, function in (t.partition("::") for t in one.tests):
        assert re.search(rf"def {function}\b", (REPO / file).read_text()), f"{file}::{function}"
    assert not (one.stand_in and one.name in tried()), "a stand-in is not the tool"


def test_at_least_five_tools_passed_their_tests_and_are_listed(tmp_path: Path) -> None:
    """`lab integrations --tested` has those alone, each with the day, in a folder that is no lab."""
    told = TestLab(tmp_path)("integrations", "--tested", "--json")
    rows = json.loads(told.out)
    assert {r["name"] for r in rows} == set(tried())
    assert {"Ansible", "MLflow", "Optuna", "llama.cpp", "restic"} <= {r["name"] for r in rows}
    for row in rows:
        assert datetime.date.fromisoformat(row["passed"]) <= datetime.datetime.now(tz=datetime.UTC).date()
        assert row["with"]
        assert row["tests"]
    lines = TestLab(tmp_path)("integrations").out.splitlines()
    assert len(lines) == len(INTEGRATIONS)
    assert all(any(line.split("  ")[1] == one.name for line in lines) for one in INTEGRATIONS)


def test_the_page_is_made_from_the_same(tmp_path: Path) -> None:
    """`lab docs --check` sees a page that says something else."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/verbs.md").write_text("")
    TestLab(tmp_path)("docs")
    here = tmp_path / "docs/integrations.md"
    assert here.read_text() == page() == (REPO / "docs/integrations.md").read_text()
    here.write_text(page().replace("MLflow", "MLfl0w"))
    told = TestLab(tmp_path)("docs", "--check")
    assert told.code == 1
    assert "docs/integrations.md is stale" in told.err


def test_only_what_passed_whole_is_noted(tmp_path: Path) -> None:
    """One failed or skipped, or left out, of several: nothing is noted. What was noted before stays."""
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import *\n"
        "from lab.adapters import integrations as i\n"
        "def one(name, *tests, **more):\n"
        "    return i.Integration(name, 'x', ('lab',), (), tuple(f'test_x.py::{t}' for t in tests), **more)\n"
        "i.KEPT = i.Path(__file__).with_name('kept.json')\n"
        "i.INTEGRATIONS = (\n"
        "    one('good', 'test_a', 'test_in_class'), one('bad', 'test_a', 'test_b'), one('skipped', 'test_c'),\n"
        "    one('some', 'test_d'), one('absent', 'test_a', 'test_z'), one('acted', 'test_a', stand_in='a recorder'),\n"
        ")\n"
    )
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert 0\n"
        "def test_c(): pytest.skip('no')\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_d(n): assert n == 1\n"
        "class TestMany:\n"
        "    def test_in_class(self): pass\n"
    )
    (tmp_path / "kept.json").write_text('{"old": {"day": "2026-01-01", "version": "1"}}')
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--keep-tried",
        "--rootdir",
        str(tmp_path),
    ]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True
    )
    assert ran.returncode == 1, ran.stdout
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept.keys() == {"old", "good"}, ran.stdout
    assert kept["old"] == {"day": "2026-01-01", "version": "1"}
