"""Whatever the system refuses, Lab says plainly what and the next apply completes; nothing is lost and nothing torn.

The errors are injected at the same boundaries at which it is killed: a full disk, a failing one, a read-only one, no
more file descriptors, and writes that go half through.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import adapters
from lab.apply.results import explained
from tests.faults.campaign import Campaign
from tests.faults.labs import deeds
from tests.faults.zygote import Zygote
from tests.labs import REPO, TestLab

ERRORS = ["ENOSPC", "EIO", "EROFS", "EMFILE", "short"]


@pytest.mark.parametrize("how", ERRORS)
def test_an_error_here_and_there(quick: Path, zygote: Zygote, how: str) -> None:
    """Once at some boundaries, and from some boundaries on for good."""
    campaign = Campaign(quick, deeds()["change"], zygote)
    for n, at in enumerate(campaign.every(17)):
        campaign.fail(at, how, lasting=bool(n % 2))
    assert campaign.report.refused
    assert not campaign.report.lost, str(campaign.report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["create", "change"])
def test_an_error_everywhere(quick: Path, zygote: Zygote, source: Path, name: str) -> None:
    """At every boundary of files and a model, with the errors in turn."""
    campaign = Campaign(quick, deeds(source)[name], zygote)
    for n, at in enumerate(campaign.every()):
        campaign.fail(at, ERRORS[n % 5], lasting=bool(n // 5 % 2))
    print(campaign.report)
    assert not campaign.report.lost, str(campaign.report)


def test_a_step_that_brought_nothing_about_is_no_success(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a performer says is not believed: it is looked at, told, and done by the next apply."""
    lab = TestLab.make(quick / "lab", {"file/a": "path: ROOT/out/a\ncontent: a\n"})
    with monkeypatch.context() as broken:
        broken.setattr(adapters, "performer", lambda verb: lambda step, stage: {})
        ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "file.a is not there" in ran.err + ran.out
    assert lab("apply", "--yes").code == 0
    assert (quick / "lab/out/a").read_text() == "a"


@pytest.mark.parametrize("number", sorted(set(errno.errorcode) - {errno.EINTR}))
def test_what_the_system_refuses_is_no_fault_in_lab(number: int) -> None:
    """Every error it has a number for is told in its words, with the path."""
    found = explained(OSError(number, os.strerror(number), "/there"))
    assert found
    assert found.summary.endswith(": /there")
    assert found.why == os.strerror(number)
    assert found.do


def test_no_thread_more(quick: Path) -> None:
    """A limit on processes counts threads too: told as that, and the next apply completes."""
    lab = TestLab.make(quick / "lab", {"file/a": "path: ROOT/out/a\ncontent: a\n"})
    line = (
        "import threading, sys\n"
        "def refused(*_): raise RuntimeError('can\\'t start new thread')\n"
        "threading._start_new_thread = refused\n"
        f"sys.argv = ['lab', '-C', {str(lab.root)!r}, 'apply', '--yes']\n"
        "from lab.cli.main import run\nrun()"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    ran = subprocess.run([sys.executable, "-c", line], env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert "no more processes may be started" in ran.stderr
    assert lab("apply", "--yes").code == 0
    assert (quick / "lab/out/a").read_text() == "a"


def test_a_limit_on_files_is_no_damage(quick: Path) -> None:
    """The ledger that may not grow is not to be restored from a copy that knows less; without the limit all goes on."""
    lab = TestLab.make(quick / "lab", {"file/a": "path: ROOT/out/a\ncontent: a\n"})
    line = f"ulimit -f 64; {sys.executable} -m lab -C {lab.root} apply --yes"
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    ran = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert "SQLite says: disk I/O error" in ran.stderr
    assert "check its volume" in ran.stderr
    assert "state restore" not in ran.stderr
    assert lab("apply", "--yes").code == 0
    assert (quick / "lab/out/a").read_text() == "a"
