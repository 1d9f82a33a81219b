"""A throw-away copy of this machine: real accounts, packages and sshd, gone when the command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ENTER = """
set -e
mount -t tmpfs -o size=3G tmpfs "$D"
mkdir "$D/upper" "$D/work" "$D/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$D/upper",workdir="$D/work" "$D/root"
for each in sys dev dev/pts dev/shm; do mount --bind "/$each" "$D/root/$each"; done
mount -t proc proc "$D/root/proc"
chroot "$D/root" "$@" &  # the shell stays: as the first process it reaps what is orphaned
wait $!
"""


def possible() -> str:
    """Why there can be no sandbox here; empty where there can."""
    if os.geteuid():
        return "needs root"
    overlay = "mount -t overlay overlay -o lowerdir=/etc,upperdir=$d/u,workdir=$d/w $d/m"
    script = f"d=$(mktemp -d) && mount -t tmpfs tmpfs $d && mkdir $d/u $d/w $d/m && {overlay}"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True)
    return "" if tried.returncode == 0 else "needs mount namespaces and overlayfs"


def inside(script: Path, folder: Path, *arguments: str, timeout: float = 600) -> dict[str, Any]:
    """What a Python script prints as JSON on its last line, run as root in a throw-away copy of this machine."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "--propagation", "private",
         "bash", "-c", ENTER, "sandbox", sys.executable, str(script), *arguments],
        env={**os.environ, "D": str(folder), "PYTHONPATH": str(root), "HOME": "/root"},
        capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise AssertionError(
            f"{script.name} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    found: dict[str, Any] = json.loads(lines[-1])
    return found
