"""Small labs in temporary folders, and the command line in-process or as a killable child."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.cli.main import main
from lab.core.problem import Problems

REPO = Path(__file__).parents[1]
LEDGER = ""
"""What labs made here say of their ledger's place; empty for the file they have by default."""


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it exited."""

    code: int
    out: str
    err: str = ""


@dataclass(frozen=True)
class TestLab:
    """A lab in a folder."""

    __test__ = False
    root: Path

    @classmethod
    def make(cls, root: Path, files: Mapping[str, str] | None = None, head: str = "") -> TestLab:
        """A lab with these `kind/name` declarations; ROOT in them is its folder."""
        lab = cls(root)
        ledger = f", ledger: {LEDGER}" if LEDGER else ""
        lab.write("conf/lab.yaml", f"lab: {{name: t, id: 00000000-test, store: {root}/store{ledger}}}\n{head}")
        for name, body in (files or {}).items():
            lab.write(f"conf/{name}.yaml", body)
        return lab

    def write(self, path: str, text: str) -> None:
        """A file of the lab."""
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text.replace("ROOT", str(self.root)))

    def __call__(self, *words: str) -> Ran:
        """`lab -C ROOT …` in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(["-C", str(self.root), *words], out, err)
            except Problems as e:
                print(e, file=err)
                code = 1
        return Ran(code, out.getvalue(), err.getvalue())

    def child(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """`lab -C ROOT …` as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "lab", "-C", str(self.root), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPO), **(env or {})},
        )

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> Ran:
        """The same, waited for."""
        process = self.child(*words, env=env)
        out, err = process.communicate(timeout=120)
        return Ran(process.returncode, out, err)

    def git(self, *words: str) -> str:
        """`git …` in the lab, as a fixed person."""
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words],
            cwd=self.root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
