"""remote: a verb runs on the managed host, over SSH, where the ledger is; the laptop keeps none."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.adapters.ssh import quoted
from lab.core.problem import did_you_mean, problem


def command(root: Path, name: str, words: Sequence[str], *, terminal: bool) -> list[str]:
    """The ssh command that runs `lab WORDS` on the host declared in `conf/host/NAME.yaml`. Reads.

    `ssh:` there is what ssh takes as destination (`me@studio`), `folder:` the lab's folder on that host. `LAB_SSH` may
    replace `ssh` itself, options included.
    """
    from lab.declare.read import read

    folder = root / "conf" / "host"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in folder.glob("*.yaml")] if folder.is_dir() else []
        raise problem(
            f"there is no host `{name}`{did_you_mean(name, known)}", do=f"declare it in conf/host/{name}.yaml"
        )
    block = read(path.read_bytes(), f"conf/host/{name}.yaml").value
    destination = block.get("ssh") if isinstance(block, dict) else None
    if not destination:
        raise problem(
            f"host {name} says no way to reach it",
            file=f"conf/host/{name}.yaml",
            do="add `ssh: user@host` and `folder: ~/lab`",
        )
    place = quoted(str(block.get("folder") or "~/lab"))
    line = f"cd {place} && PATH=$PWD/.venv/bin:$PATH exec lab {shlex.join(words)}"
    ssh = shlex.split(os.environ.get("LAB_SSH", "ssh"))
    return [*ssh, *(["-t"] if terminal else []), str(destination), line]


def run(root: Path, name: str, words: Sequence[str], *, terminal: bool) -> int:
    """Runs it, its output and exit code being ours; Problems where the host cannot be reached."""
    try:
        code = subprocess.run(command(root, name, words, terminal=terminal)).returncode
    except OSError as e:
        raise problem("ssh cannot be started", why=e.strerror or str(e), do="install an ssh client") from e
    if code == 255:
        raise problem(f"host {name} cannot be reached", why="ssh says why above", do="try `lab doctor access`")
    return code
