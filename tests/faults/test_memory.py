"""Memory that runs out: the system kills what takes too much, and that is told as what it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.labs import REPO, TestLab

LIMIT = 250 << 20
GREEDY = "x = bytearray(600 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
IN_A_CHILD = """
from pathlib import Path
from lab.adapters import child
from lab.core.problem import Problems
try:
    child.run("tests.faults.test_memory:greedy", {}, log=Path("log"), what="the quantization")
except Problems as e:
    print(e)
"""


def greedy(args: object, progress: object) -> None:
    """More memory than there is."""
    exec(GREEDY)


@pytest.fixture
def little() -> Iterator[Callable[[], None]]:
    """What puts a process that is just begun into a control group of little memory."""
    old = Path("/sys/fs/cgroup/memory")
    top, name = (old, "memory.limit_in_bytes") if old.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = top / f"lab-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(LIMIT))
    except OSError:
        pytest.skip("no control group can be made here")
    yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    until = time.monotonic() + 20
    while (group / "cgroup.procs").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    group.rmdir()


def test_a_child_that_the_system_kills_for_memory(tmp_path: Path, little: Callable[[], None]) -> None:
    """It is not "ended by SIGKILL": what is wrong is the memory."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        preexec_fn=little,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "the quantization ran out of memory" in ran.stdout
    assert "SIGKILL" not in ran.stdout


def test_a_run_that_the_system_kills_for_memory(tmp_path: Path, little: Callable[[], None]) -> None:
    """Its apply says so, without a traceback; where there is memory, the same apply completes."""
    body = f"command: [{sys.executable}, greedy.py]\ncode: [greedy.py]\n"
    lab = TestLab.make(tmp_path, {"experiment/greedy": body})
    lab.write("greedy.py", GREEDY)
    words = [sys.executable, "-m", "lab", "-C", str(lab.root), "apply", "--yes"]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    ran = subprocess.run(words, env=env, preexec_fn=little, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ran out of memory" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    assert lab("state", "check").code == 0
    again = lab("apply", "--yes")
    assert again.code == 0, again.err
    assert "No changes" in lab("plan").out
