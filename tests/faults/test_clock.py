"""The wall clock is set while Lab works, or between: nothing is lost, repeated, ended too early or overtaken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.adapters import admission
from lab.adapters.admission_ledger import charge, ledger
from lab.core.queueing import Asks
from tests.faults.labs import deeds
from tests.faults.shim import Clocks, compiled
from tests.faults.zygote import Zygote
from tests.labs import TestLab

DAY, YEAR = 86_400, 365 * 86_400


@pytest.mark.parametrize("name", ["create", "change", "destroy"])
def test_a_clock_that_is_set_during_an_apply(quick: Path, shimmed: Zygote, source: Path, name: str) -> None:
    """A day back and a year ahead, at some boundaries of files, a model and a dataset."""
    campaign = Clocks(quick, deeds(source)[name], shimmed)
    for n, at in enumerate(campaign.every(41)):
        campaign.jump(at, -DAY if n % 2 else YEAR)
    print(campaign.report)
    assert campaign.report.injected > campaign.report.missed
    assert not campaign.report.lost, str(campaign.report)


@pytest.mark.parametrize(("seconds", "timeout", "takes"), [(YEAR, 300, 2), (-DAY, 3, 600)])
def test_a_run_ends_by_the_time_that_passes(tmp_path: Path, seconds: int, timeout: int, takes: int) -> None:
    """A clock set ahead is no timeout, a clock set back no reprieve, and its seconds are those that passed."""
    body = f"command: 'echo begun; sleep {takes}'\ntimeout: {timeout}s\n"
    lab = TestLab.make(tmp_path / "lab", {"experiment/one": body})
    clock = tmp_path / "clock"
    child = lab.child("apply", "--yes", env={"LD_PRELOAD": compiled(tmp_path), "LAB_SHIM_CLOCK": str(clock)})
    end = time.monotonic() + 60
    while not any(b"begun" in f.read_bytes() for f in lab.root.glob("state/runs/*/output.log")):
        assert time.monotonic() < end
        time.sleep(0.05)
    clock.write_text(str(seconds))
    out, err = child.communicate(timeout=60)
    (result,) = lab.root.glob("state/runs/*/result.json")
    told = json.loads(result.read_text())
    assert (told["state"], child.returncode) == (("finished", 0) if takes < timeout else ("timed out", 1)), out + err
    assert min(takes, timeout) <= told["seconds"] < 60


def test_the_newest_copy_of_the_ledger_is_the_newest_also_behind_a_clock_that_was_ahead(tmp_path: Path) -> None:
    """Its name is later than every other's: it is not the one that is dropped, and it is the one that is restored."""
    lab = TestLab.make(tmp_path / "lab")
    clock = tmp_path / "clock"
    env = {"LD_PRELOAD": compiled(tmp_path), "LAB_SHIM_CLOCK": str(clock)}
    for n in range(12):
        clock.write_text(str(YEAR + n if n < 10 else 0))
        lab.write(f"conf/file/f{n}.yaml", f"path: ROOT/out/{n}\ncontent: '{n}'\n")
        ran = lab.run("apply", "--yes", env=env)
        assert ran.code == 0, ran
    (lab.root / "state/ledger.sqlite").write_bytes(b"no ledger any more")
    assert lab("state", "restore").code == 0
    assert "file.f11" in lab("state", "list").out
    assert "No changes" in lab("plan").out


def test_who_holds_memory_is_known_whatever_the_clock_says(tmp_path: Path) -> None:
    """A clock that was set moves the time a process is said to have begun at: its holder is not taken for dead."""
    if sys.platform != "linux" or os.getuid() or not shutil.which("unshare"):
        pytest.skip("needs root on Linux")
    told = Path("/proc/stat").read_text().splitlines()
    moved = [f"btime {int(x.split()[1]) + YEAR}" if x.startswith("btime ") else x for x in told]
    (tmp_path / "stat").write_text("\n".join(moved) + "\n")
    look = f"import pathlib; from lab.adapters.admission import status; print(len(status(pathlib.Path('{tmp_path}'))))"
    shell = f"mount --bind {tmp_path}/stat /proc/stat && exec {sys.executable} -c {json.dumps(look)}"
    with admission.admit(tmp_path, 10, 100, "holder", wait=False):
        seen = subprocess.run(["unshare", "-m", "sh", "-c", shell], capture_output=True, text=True, check=False)
    if "unshare" in seen.stderr or "mount" in seen.stderr:
        pytest.skip("namespaces are not allowed here")
    assert seen.stdout.strip() == "1", seen.stderr


def test_nobody_overtakes_by_a_clock_that_was_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that wait, the first to come stays the first."""
    real = time.time
    with contextlib.ExitStack() as stack:
        stack.enter_context(admission.admit(tmp_path, 90, 100, "holder", wait=False))
        for name, off in (("first", 0), ("second", -DAY)):
            monkeypatch.setattr(time, "time", lambda off=off: real() + off)
            me = {"id": name, "pid": os.getpid(), "born": admission.born(os.getpid()), "name": name, "need": 50,
                  "held": False, "came": time.time(), "asks": {}, "pool": [], "limits": {}}  # fmt: skip
            assert not admission._try(tmp_path, me, 100, lambda: 100, queue=True)[0].begins
        assert [e.name for e in admission.status(tmp_path)] == ["holder", "first", "second"]


def test_a_clock_set_ahead_charges_nobody_a_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account is charged what it can have held at most."""
    with admission.admit(tmp_path, 50, 100, "job", wait=False, asks=Asks(owner="ann")), ledger(tmp_path) as book:
        (entry,) = book.entries
        days = charge({}, entry, time.time() + YEAR)
    assert 0 < sum(machine for held in days.values() for _, machine in held.values()) < 600
