"""Measure: a command as a whole process: CPU seconds, wall seconds, peak memory, by the kernel's own accounting."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """What one run of a command took."""

    cpu: float
    """Seconds of user and system time, children included."""
    wall: float
    memory: int
    """Peak resident bytes of the largest single process."""
    code: int

    def cell(self) -> str:
        """`0.93 s · 90 MiB`."""
        return f"{self.cpu:.2f} s · {self.memory / 2**20:.0f} MiB"


def measure(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> Figures:
    """Runs a command once, its output thrown away."""
    begun = time.perf_counter()
    with open(os.devnull, "w") as null:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=null, stderr=null, stdin=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    memory = usage.ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
    return Figures(usage.ru_utime + usage.ru_stime, time.perf_counter() - begun, memory, process.returncode)


def best(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, runs: int = 3) -> Figures:
    """The run with the least CPU time of several: noise only ever adds."""
    return min((measure(command, cwd, env) for _ in range(runs)), key=lambda f: f.cpu)


def stamp() -> str:
    """When and where something is measured, and the commit that touched lab/ last; `+` where more is changed there."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run(
        [*git, "log", "-1", "--format=%h", "--", ":/lab"], capture_output=True, text=True
    ).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/lab"]).returncode
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    day, load = datetime.datetime.now(tz=datetime.UTC).date(), os.getloadavg()[0]
    return f"*{day}, commit {commit or 'unknown'}{'+' if changed else ''}, {machine}, load {load:.0f}.*"


def written(page: Path, name: str, text: str) -> None:
    """The stamped figures between the marks of `name` in a page are these now; missing marks are added."""
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, _, rest = page.read_text().partition(first)
    page.write_text(f"{before}{first}{stamp()}\n\n{text}\n{last}{rest.partition(last)[2]}")
