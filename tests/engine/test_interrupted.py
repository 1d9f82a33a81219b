"""Whatever stops an apply, the ledger stays true and the next apply finishes. Proves DC-4, S2-1.2-5, S3-VI.4-1."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lab import adapters
from tests.labs import TestLab

PLUG = '''
"""A kind whose steps take their time, for tests of interruption."""
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from lab.core.kind import Declaration
from lab.core.step import Step

@dataclass(frozen=True, slots=True)
class Nap(Step):
    verb: ClassVar[str] = "nap"
    path: str
    seconds: float
    n: int

class Sleeper(Declaration):
    """Naps, then leaves a file."""
    kind: ClassVar[str] = "sleeper"
    path: str
    seconds: float = 0.0
    naps: int = 1
    def wanted(self, context): return {"path": self.path, "naps": self.naps}
    def observe(self, world, context):
        text = world.read(self.path)
        return None if text is None else {"path": self.path, "naps": len(text.split())}
    def steps(self, change, context):
        if change.action == "destroy":
            from lab.core.step import Remove
            yield Remove(self.path)
            return
        for n in range(self.naps):
            yield Nap(self.path, self.seconds, n)

def nap(step, stage):
    end = time.monotonic() + step.seconds
    while time.monotonic() < end:
        stage.check()
        stage.progress(step.seconds - (end - time.monotonic()), step.seconds, "s")
        time.sleep(0.01)
    path = Path(step.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    words = path.read_text().split() if path.exists() else []
    if str(step.n) not in words:
        path.write_text(" ".join([*words, str(step.n)]))
    with open(f"{step.path}.log", "a") as log:
        log.write(f"{step.n}\\n")
'''


@pytest.fixture
def plugged(tmp_path: Path) -> dict[str, str]:
    """The environment in which the kind `sleeper` is installed as another package would."""
    site = tmp_path / "site"
    info = site / "napping-1.dist-info"
    info.mkdir(parents=True)
    (site / "napping.py").write_text(PLUG)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: napping\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[lab.kinds]\nsleeper = napping:Sleeper\n[lab.performers]\nnap = napping:nap\n"
    )
    return {"PYTHONPATH": f"{Path(__file__).parents[2]}:{site}"}


def wait_for(path: Path, seconds: float = 20) -> None:
    """Returns when a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def test_a_plugged_kind_plans_and_applies(tmp_path: Path, plugged: dict[str, str]) -> None:
    """A kind and its performer come from another package through entry points. Proves S0-2.1-1, S2-1.2-3."""
    lab = TestLab.make(tmp_path / "lab", {"sleeper/s": "path: ROOT/out/s\n"})
    assert "+ sleeper.s" in lab.run("plan", env=plugged).out
    assert lab.run("apply", "--yes", env=plugged).code == 0
    assert "No changes" in lab.run("plan", env=plugged).out


def test_finished_steps_are_not_repeated(tmp_path: Path, plugged: dict[str, str]) -> None:
    """Killed in its third step, a resource continues there: the journal says the first two are done."""
    lab = TestLab.make(tmp_path / "lab", {"sleeper/s": "path: ROOT/out/s\nseconds: 0.4\nnaps: 4\n"})
    child = lab.child("apply", "--yes", env=plugged)
    log = tmp_path / "lab/out/s.log"
    wait_for(log)
    while len(log.read_text().split()) < 2:
        time.sleep(0.01)
    time.sleep(0.15)
    child.kill()
    child.communicate()
    assert "an apply that did not finish it continues" in lab.run("plan", env=plugged).out
    assert lab.run("apply", "--yes", env=plugged).code == 0
    assert log.read_text().split() == ["0", "1", "2", "3"]
    assert "No changes" in lab.run("plan", env=plugged).out


def test_what_was_begun_and_is_no_longer_declared_is_removed(tmp_path: Path, plugged: dict[str, str]) -> None:
    """A resource killed half-way is known to the ledger: dropping its YAML destroys what there is of it."""
    lab = TestLab.make(tmp_path / "lab", {"sleeper/s": "path: ROOT/out/s\nseconds: 0.3\nnaps: 9\n"})
    child = lab.child("apply", "--yes", env=plugged)
    wait_for(tmp_path / "lab/out/s")
    child.kill()
    child.communicate()
    (tmp_path / "lab/conf/sleeper/s.yaml").unlink()
    lab.write("conf/file/a.yaml", "path: ROOT/out/a\ncontent: a\n")
    assert "- sleeper.s" in lab.run("plan", env=plugged).out
    assert lab.run("apply", "--yes", env=plugged).code == 0
    assert not (tmp_path / "lab/out/s").exists()


def test_one_writer_at_a_time_and_a_dead_one_is_taken_over(tmp_path: Path, plugged: dict[str, str]) -> None:
    """A second apply says who holds the lock; after SIGKILL the next takes over and says so; plan never waits."""
    lab = TestLab.make(tmp_path / "lab", {"sleeper/s": "path: ROOT/out/s\nseconds: 90\n"})
    child = lab.child("apply", "--yes", env=plugged)
    wait_for(tmp_path / "lab/state/ledger.sqlite")
    time.sleep(0.5)
    second = lab.run("apply", "--yes", env=plugged)
    assert second.code == 1
    assert f"pid {child.pid}" in second.err
    assert lab.run("plan", env=plugged).code == 0
    child.kill()
    child.communicate()
    lab.write("conf/sleeper/s.yaml", "path: ROOT/out/s\nseconds: 0.1\n")
    third = lab.run("apply", "--yes", env=plugged)
    assert third.code == 0
    assert "took over the lock" in third.err


def test_ctrl_c_once_finishes_the_steps_in_hand_and_twice_cancels(tmp_path: Path, plugged: dict[str, str]) -> None:
    """One SIGINT: what runs is finished, what waits is not tried. Two: what runs is cancelled. Both exit with 130."""
    files = {"sleeper/a": "path: ROOT/out/a\nseconds: 1.5\n", "sleeper/b": "path: ROOT/out/b\nneeds: [sleeper.a]\n"}
    lab = TestLab.make(tmp_path / "lab", files)
    child = lab.child("apply", "--yes", "--json-events", env=plugged)
    assert child.stderr is not None
    for line in child.stderr:
        if '"progress"' in line:
            break
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 130
    assert (tmp_path / "lab/out/a").exists()
    assert not (tmp_path / "lab/out/b").exists()
    assert "1 done, 1 not tried" in out

    lab = TestLab.make(tmp_path / "two", files | {"sleeper/a": "path: ROOT/out/a\nseconds: 30\n"})
    child = lab.child("apply", "--yes", "--json-events", env=plugged)
    assert child.stderr is not None
    for line in child.stderr:
        if '"progress"' in line:
            break
    child.send_signal(signal.SIGINT)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=10)
    assert child.returncode == 130
    assert not (tmp_path / "two/out/a").exists()


def test_killed_twenty_times_nothing_is_lost(tmp_path: Path) -> None:
    """SIGKILL at random moments of an apply of many files: the ledger opens each time, and the last apply finishes."""
    files = {f"file/f{i:03}": f"path: ROOT/out/{i}.txt\ncontent: 'file {i}'\n" for i in range(400)}
    lab = TestLab.make(tmp_path / "lab", files)
    moments = random.Random(7)
    for _ in range(20):
        child = lab.child("apply", "--yes", "-q")
        time.sleep(moments.uniform(0.25, 1.0))
        child.kill()
        child.communicate()
        assert lab("state", "check").code == 0 or not (tmp_path / "lab/state/ledger.sqlite").exists()
        if (tmp_path / "lab/out").exists() and len(os.listdir(tmp_path / "lab/out")) == 400:
            shutil.rmtree(tmp_path / "lab/out")
    assert lab("apply", "--yes").code == 0
    assert "No changes" in lab("plan").out
    assert lab("verify").code == 0
    assert sorted(os.listdir(tmp_path / "lab/out")) == sorted(f"{i}.txt" for i in range(400))


@pytest.mark.parametrize("harm", ["missing", "empty", "truncated", "garbage", "older", "rows"])
def test_a_lost_or_damaged_ledger_is_a_problem_not_n_to_create(tmp_path: Path, harm: str) -> None:
    """However the ledger was harmed, plan and apply say so and touch nothing; restore brings it back."""
    files = {f"file/f{i}": f"path: ROOT/out/{i}.txt\ncontent: 'file {i}'\n" for i in range(60)}
    lab = TestLab.make(tmp_path, files)
    lab("apply", "--yes")
    ledger = tmp_path / "state/ledger.sqlite"
    with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    old = ledger.read_bytes()
    lab("state", "backup")
    if harm == "missing":
        ledger.unlink()
    elif harm == "empty":
        ledger.write_bytes(b"")
    elif harm == "truncated":
        ledger.write_bytes(old[: len(old) // 3])
    elif harm == "garbage":
        ledger.write_bytes(random.Random(1).randbytes(len(old)))
    elif harm == "older":
        lab.write("conf/file/f0.yaml", "path: ROOT/out/0.txt\ncontent: new\n")
        lab("apply", "--yes")
        ledger.write_bytes(old)
        for tail in ("-wal", "-shm"):
            ledger.with_name(ledger.name + tail).unlink(missing_ok=True)
    elif harm == "rows":
        with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as db:
            db.execute("UPDATE resource SET facts = replace(facts, '0644', '0600') WHERE address = 'file.f1'")
        assert "altered" in lab("state", "check").err
    if harm not in ("rows",):
        for verb in (("plan",), ("apply", "--yes")):
            ran = lab(*verb)
            assert ran.code == 1, ran
            assert "ledger" in ran.err
            assert "restore" in ran.err or "import --all" in ran.err
            assert "Traceback" not in ran.err
    assert lab("state", "restore").code == 0
    assert lab("apply", "--yes").code == 0
    assert lab("verify").code == 0


def test_a_lost_ledger_is_rebuilt_by_import(tmp_path: Path) -> None:
    """With no copy left, `lab import --all` adopts what is there; nothing is written anew."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/a.txt\ncontent: hello\n"})
    lab("apply", "--yes")
    inode = (tmp_path / "a.txt").stat().st_ino
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").mkdir()
    assert lab("import", "--all").code == 0
    assert lab("plan", "--detailed-exitcode").code == 0
    assert (tmp_path / "a.txt").stat().st_ino == inode


def test_a_ledger_of_a_newer_lab_is_refused(tmp_path: Path) -> None:
    """Backwards is no migration."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/a.txt\ncontent: hello\n"})
    lab("apply", "--yes")
    with contextlib.closing(sqlite3.connect(tmp_path / "state/ledger.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    ran = lab("plan")
    assert ran.code == 1
    assert "newer Lab" in ran.err


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_clear_problem_and_nothing_is_lost(tmp_path: Path) -> None:
    """A disk that fills up mid-apply: what was written is recorded, the rest is done when there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    try:
        files = {f"file/f{i}": f"path: ROOT/disk/{i}.bin\ncontent: '{'x' * 90_000}'\n" for i in range(9)}
        lab = TestLab.make(tmp_path, files)
        ran = lab("apply", "--yes")
        assert ran.code == 1
        assert "the disk is full" in ran.err
        assert "Traceback" not in ran.err
        recorded = lab("state", "list").out.split()
        subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
        plan = json.loads(lab("plan", "--json").out)
        assert plan["summary"]["none"] >= 1
        assert recorded
        assert lab("apply", "--yes").code == 0
        assert lab("verify").code == 0
        assert not [p for p in disk.iterdir() if p.name.startswith(".")]
    finally:
        subprocess.run(["umount", disk], check=False)


def test_a_read_only_place_is_a_clear_problem(tmp_path: Path) -> None:
    """A folder that cannot be written names itself; the rest of the lab is done."""
    lab = TestLab.make(
        tmp_path, {"file/a": "path: /proc/lab-test/a\ncontent: x\n", "file/b": "path: ROOT/b\ncontent: b\n"}
    )
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "file.a" in ran.err
    assert (tmp_path / "b").exists()
    assert "Traceback" not in ran.err


def test_a_lost_ledger_with_no_copy_left_is_adopted_anew(tmp_path: Path) -> None:
    """What the problem says to do works: `lab import --all` begins a new ledger, stamps or not."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/store/a.txt\ncontent: hello\n"})
    lab("apply", "--yes")
    shutil.rmtree(tmp_path / "state/backup")
    for tail in ("", "-wal", "-shm"):
        (tmp_path / f"state/ledger.sqlite{tail}").unlink(missing_ok=True)
    assert lab("plan").code == 1
    assert lab("import", "--all").code == 0
    assert lab("plan", "--detailed-exitcode").code == 0


def test_every_apply_leaves_a_copy_of_the_ledger(tmp_path: Path) -> None:
    """The newest five copies are kept, and the file alone is the whole ledger."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/a.txt\ncontent: hello\n"})
    lab("apply", "--yes")
    (tmp_path / "state/ledger.sqlite").unlink()
    assert lab("state", "restore").code == 0
    assert lab("plan", "--detailed-exitcode").code == 0


def test_a_reader_that_leaves_does_not_stop_an_apply(tmp_path: Path) -> None:
    """`lab apply | head -1` does all its work and says how it ended by its exit code."""
    files = {f"file/f{i}": f"path: ROOT/out/{i}.txt\ncontent: 'file {i}'\n" for i in range(50)}
    lab = TestLab.make(tmp_path, files)
    child = lab.child("apply", "--yes")
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr is not None
    child.stderr.read()
    assert child.wait(timeout=60) == 0
    assert len(os.listdir(tmp_path / "out")) == 50
    assert (tmp_path / "state/stamp.json").exists()


def test_a_second_checkout_of_a_lab_is_told_what_to_do(tmp_path: Path) -> None:
    """The store knows which ledger describes it, from its first apply on: while that lives, another is refused, and is
    told where to work; when it is gone, `lab import --all` adopts what is there, and nothing is made again."""
    store = {"store": str(tmp_path / "shared")}
    files = {"file/a": f"path: {store['store']}/a.txt\ncontent: hello\n"}
    first, second = (TestLab.make(tmp_path / n, files) for n in ("one", "two"))
    for lab in (first, second):
        lab.write("conf/lab.yaml", f"lab: {{name: t, id: 00000000-test, store: {store['store']}}}\n")
    assert first("apply", "--yes").code == 0
    inode = (tmp_path / "shared/a.txt").stat().st_ino
    for verb in (("plan",), ("apply", "--yes"), ("import", "--all")):
        ran = second(*verb)
        assert ran.code == 1
        assert "the store belongs to another checkout of this lab" in ran.err
        assert f"work in {first.root}," in ran.err
    shutil.rmtree(first.root)
    ran = second("plan")
    assert ran.code == 1
    assert f"({first.root}/state/ledger.sqlite, which wrote that, is gone)" in ran.err
    assert "lab import --all" in ran.err
    assert second("import", "--all").code == 0
    assert second("plan", "--detailed-exitcode").code == 0
    assert (tmp_path / "shared/a.txt").stat().st_ino == inode


def test_a_change_goes_on_at_the_step_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal says which steps are done, and they are not performed again."""
    monkeypatch.setenv("LAB_WORD", "correct horse")
    lab = TestLab.make(tmp_path, {"backup/b": "repo: ROOT/repo\npassword: env:LAB_WORD\npaths: [ROOT/conf]\n"})
    real = adapters.performer
    done: list[str] = []

    def performer(verb: str) -> Any:
        if verb == "write" and "write" not in done:
            done.append(verb)
            raise OSError(errno.EIO, "the disk failed")
        done.append(verb)
        return real(verb)

    monkeypatch.setattr(adapters, "performer", performer)
    assert lab("apply", "--yes").code == 1
    assert lab("apply", "--yes").code == 0
    assert done == ["open_repository", "write", "write", "schedule"]
    assert "No changes" in lab("plan").out
