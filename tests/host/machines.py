"""Machines: a home, a store and a place for labs beside others, as if each were a machine of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.labs import REPO

NO_NET = ["unshare", "-r", "-n"]


class Machine:
    """A home, a store and a place for labs, as on a machine of its own."""

    def __init__(self, at: Path) -> None:
        self.at = at
        (at / "home").mkdir(parents=True)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "UV_", "RESTIC_", "GIT_"))},
            "HOME": str(at / "home"), "LAB_STORE": str(at / "store"), "PYTHONPATH": str(REPO),
            "LAB_PW": "correct horse", "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@t",
        }  # fmt: skip

    def lab(self, *words: str, net: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`lab WORDS…` here, with the network or without."""
        command = [sys.executable, "-m", "lab", *words]
        return subprocess.run(
            command if net else [*NO_NET, *command],
            cwd=self.at, env={**self.env, **(env or {})}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.at / "lab", env=self.env, check=True, capture_output=True)
