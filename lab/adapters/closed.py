"""Closed: running something in an environment so that nothing of the caller's own leaks in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "SSH_AUTH_SOCK", "DISPLAY", "COLORTERM")
"""What of the caller's environment an env sees; `LANG` and `LC_*` too."""
SYSTEM = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit status, and stdout and stderr together."""

    returncode: int
    text: str


def environment(prefix: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """A process's whole environment in an env: no user site, no PYTHONPATH, its own tools before the system's."""
    here = os.path.realpath(prefix)
    kept = {k: v for k, v in os.environ.items() if k in KEPT or k == "LANG" or k.startswith("LC_")}
    return {
        **kept,
        "PATH": os.pathsep.join([f"{here}/bin", *SYSTEM]),
        "CONDA_PREFIX": here,
        "LAB_ENV": here,
        "PYTHONNOUSERSITE": "1",
        # Bytecode stays out of the packages' folders, which hold exactly what was installed.
        "PYTHONPYCACHEPREFIX": f"{here}/.lab/pycache",
        **(variables or {}),
    }


def run(
    prefix: str | os.PathLike[str],
    command: list[str],
    variables: Mapping[str, str] | None = None,
    check: Callable[[], None] = lambda: None,
    timeout: float = 600,
) -> Done:
    """A command in a closed env, to its end; `check` may raise to stop it, and its whole process group with it."""
    import signal
    import time

    process = subprocess.Popen(
        command,
        env=environment(prefix, variables),
        cwd=Path.home() if Path.home().is_dir() else "/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    ends = time.monotonic() + timeout
    while True:
        try:
            out, _ = process.communicate(timeout=0.2)
            return Done(process.returncode, out)
        except subprocess.TimeoutExpired:
            try:
                check()
                if time.monotonic() > ends:
                    raise TimeoutError
            except BaseException as e:
                os.killpg(process.pid, signal.SIGKILL)
                out, _ = process.communicate()
                if isinstance(e, TimeoutError):
                    return Done(124, f"{out}\nstopped after {timeout:.0f} s")
                raise
