"""The threat model says only what is tried.

Proves: S4-8.2-1, with `bandit -r lab -ll` in the gate and here, and the escape tests that the page names.
"""

from __future__ import annotations

import re
import subprocess
import sys

from lab import cli
from tests.labs import REPO

PAGE = (REPO / "docs/threats.md").read_text()


def test_every_row_names_tests_that_are_there() -> None:
    """A row without one would be a promise; each is named by its function, so that it can be read and run."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| entry")]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.split(" | ")[3])
        assert named, row
        for file, function in named:
            assert re.search(rf"def {function}\b", (REPO / file).read_text()), f"{file}::{function}"


def test_bandit_finds_nothing_of_weight() -> None:
    """Each place that is passed over says why on its line."""
    found = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-r", cli.__path__[0].removesuffix("/cli"), "-ll"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout
