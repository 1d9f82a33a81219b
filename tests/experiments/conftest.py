"""Labs of experiments and datasets for the tests, and the command line run in this process."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.app.lab import Lab
from lab.cli import main as cli
from lab.core.problem import Problems

LAB = """\
defaults:
  - _self_
  - profile: all
lab: {name: test, id: 0e6c5a11, store: %s}
"""
PROFILE = '# @package _global_\nresources: {experiment: "*", dataset: "*"}\n'


class Bench:
    """A lab in a temporary folder."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys

    def write(self, name: str, text: str) -> Path:
        """A file of the lab."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    @property
    def lab(self) -> Lab:
        """The lab, opened anew."""
        return Lab.find(self.root)

    def __call__(self, *words: str) -> tuple[int, str]:
        """`lab WORDS…`: exit code and what it printed, problems included."""
        import sys

        self._capsys.readouterr()
        try:
            code = cli.main(["-C", str(self.root), *words], sys.stdout, sys.stderr)
            told = ""
        except Problems as e:
            code, told = 1, str(e)
        out = self._capsys.readouterr()
        return code, out.out + out.err + told


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """An empty lab."""
    root = tmp_path / "lab"
    made = Bench(root, capsys)
    made.write("conf/lab.yaml", LAB % (tmp_path / "store"))
    made.write("conf/profile/all.yaml", PROFILE)
    return made


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is true; fails after ten seconds."""
    import time

    def wait(true: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it never became true"
            time.sleep(0.01)

    return wait
