"""What is said of Lab's quality is printed by a command, and kept with the day and the commit it was true of.

Proves S3-III-1 together with `.ci/run`, which runs every test in a new virtual environment and fails where one does;
S0-7.1-1: what is typed for an experiment by hand and with Lab, counted and timed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.labs import REPO

PAGE = (REPO / "docs/performance.md").read_text()
BLOCKS = dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->", PAGE, re.DOTALL))


def test_no_module_has_outgrown_the_house_rule() -> None:
    """None over 400 lines, tests and benchmarks too."""
    long = {
        str(f.relative_to(REPO)): n
        for top in ("lab", "tests")
        for f in (REPO / top).rglob("*.py")
        if (n := len(f.read_text().splitlines())) > 400
    }
    assert not long


def test_no_lower_room_names_a_higher_one_in_a_string() -> None:
    """What an import contract forbids is not had by its name either: who serves a run is told to it."""
    lower = [
        f
        for room in ("core", "forecast", "kinds", "plan", "ledger", "runs")
        for f in (REPO / "lab" / room).glob("*.py")
    ]
    assert len(lower) > 50
    assert not [f.name for f in lower if re.search(r"""["']lab\.(adapters|app|cli)\b""", f.read_text())]


@pytest.mark.parametrize("script", sorted(p.name for p in (REPO / "tests/benchmarks").glob("bench_*.py")))
def test_a_benchmark_that_keeps_figures_has_kept_them(script: str) -> None:
    """Every block that a script writes is in the page, stamped, with figures, and says how to have them again."""
    code = (REPO / "tests/benchmarks" / script).read_text()
    for call in re.findall(r"\bwritten\(.*\)", code):
        for name in re.findall(r'"(\w+)"(?=,| if| else)', call):
            assert re.match(r"\*\d{4}-\d\d-\d\d, (committed with|commit) [0-9a-f]{7,9}\b", BLOCKS[name]), name
            assert len(re.findall(r"(?m)^\|.*\d.*\|$", BLOCKS[name])) >= 2, name
            assert f"tests.benchmarks.{script.removesuffix('.py')}" in PAGE


def test_no_block_of_figures_is_left_that_no_script_writes() -> None:
    """A figure without its script could not be had again."""
    scripts = "".join(p.read_text() for p in (REPO / "tests/benchmarks").glob("bench_*.py"))
    assert len(BLOCKS) >= 7
    for name in BLOCKS:
        assert f'"{name}"' in scripts


def test_the_share_of_lines_that_tests_run_is_printed(tmp_path: Path) -> None:
    """What a test runs is counted, in the processes it starts as well; what it does not run is not."""
    pytest.importorskip("coverage")
    (tmp_path / "test_one.py").write_text(
        "import subprocess, sys\n\ndef test_a_verb_in_a_process_of_its_own():\n"
        "    assert subprocess.run([sys.executable, '-m', 'lab', '--help'], capture_output=True).returncode == 0\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    env |= {"COVERAGE_FILE": str(tmp_path / "data"), "PYTHONPATH": str(REPO)}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", *words], cwd=REPO, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_one.py"))
    table = run("tests.benchmarks.bench_coverage")
    rows = {name: float(share) for name, share in re.findall(r"(?m)^\| (\w+) \| [\d,]+ \| ([\d.]+) % \|$", table)}
    assert 0 < rows["cli"] < 50
    assert rows["adapters"] == rows["runs"] == 0
    assert 0 < rows["TOTAL"] < 10


@pytest.mark.slow
def test_an_experiment_is_set_up_with_half_the_commands() -> None:
    """Both lists are really typed into a shell, and both end with the same result, recorded."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_setup", "--repeats", "1"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if "No matching distribution" in done.stderr or "Could not fetch" in done.stderr:
        pytest.skip("no package index is in reach")
    assert done.returncode == 0, done.stderr
    cells = re.findall(r"(\d+) commands · [\d.]+ s", done.stdout)
    by_hand, with_lab, again, again_with_lab = map(int, cells)
    assert 2 * with_lab <= by_hand
    assert again_with_lab <= again
