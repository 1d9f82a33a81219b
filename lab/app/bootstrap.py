"""bootstrap: what a bare machine still misses for this lab, and getting it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from lab.app import tools
from lab.app.lab import Lab
from lab.app.tools import Tool
from lab.core.problem import problem


@dataclass(frozen=True)
class Readiness:
    """Each tool: where it lies (empty: nowhere), and whether what this lab declares needs it."""

    tool: Tool
    there: str
    needed: bool


def bootstrap(lab: Lab) -> list[Readiness]:
    """Every tool that Lab can use, those that this lab needs first. Reads."""
    asked = tools.needs(lab.declarations)
    found = [Readiness(t, t.there(), bool(t.by & asked)) for t in tools.TOOLS]
    return sorted(found, key=lambda r: not r.needed)


def get(missing: Iterable[Tool]) -> None:
    """The missing tools are installed; raises Problems where one of the commands fails."""
    for command in tools.commands(missing):
        if not shutil.which(command[0]):
            raise problem(
                f"{command[0]} is not here to install {', '.join(command[-1:])}",
                do=f"as an administrator: {' '.join(c for c in command if c != 'sudo')}",
            )
        quiet = {"DEBIAN_FRONTEND": "noninteractive"} if "apt-get" in command else {}
        if "apt-get" in command:
            subprocess.run([*command[: command.index("apt-get") + 1], "update", "-qq"], check=False)
        if subprocess.run(command, env={**os.environ, **quiet}, check=False).returncode:
            raise problem(
                f"`{' '.join(command)}` failed", why="it says why above", do="mend that, then run `lab bootstrap` again"
            )
