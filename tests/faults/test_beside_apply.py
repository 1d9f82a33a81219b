"""Beside an apply: looking, copying, freeing and backing up are whole while it writes; what writes too is refused."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from lab.ledger import lock
from tests.faults.beside import Bench
from tests.labs import TestLab


def many(top: Path, n: int = 1200) -> TestLab:
    """A lab of many files, applied once, then all declared with another text."""
    lab = TestLab.make(top / "lab", _many(n, "old"))
    assert lab("apply", "--yes", "-q").code == 0
    for name, body in _many(n, "new").items():
        lab.write(f"conf/{name}.yaml", body)
    return lab


def _many(n: int, text: str) -> dict[str, str]:
    return {f"file/f{i:04}": f"path: ROOT/out/{i % 40}/{i}\ncontent: '{text} {i}'\n" for i in range(n)}


def whole(lab: TestLab) -> None:
    """What was changed is as declared, and sound."""
    assert "No changes" in (said := lab("plan").out), said
    assert lab("verify").code == 0
    assert lab("state", "check").code == 0
    assert not [p for p in lab.root.rglob("*") if p.name.endswith((".lab-tmp", ".tmp"))]


def test_looking_and_copying_beside_an_apply(quick: Path) -> None:
    """Drift, verify, history, copies and checks of the ledger are whole; what writes is refused by name."""
    lab = many(quick)
    child = lab.child("apply", "--yes", "-q")
    rounds = refused = slipped = 0
    while child.poll() is None and not lock.working(lab.root / "state/lock"):
        time.sleep(0.01)
    while child.poll() is None:
        for words in ("state mv file.none file.other", "import --all", "state restore"):
            before = lock.working(lab.root / "state/lock")
            if before and before.get("pid") == child.pid:
                ran = lab(*words.split())
                if lock.working(lab.root / "state/lock") == before:
                    assert ran.code == 1, (words, ran)
                    assert f"(pid {child.pid}" in ran.err, (words, ran)
                    refused += 1
                slipped += ran.code == 0  # the apply had just ended
        for words in ("drift --json", "verify --json", "state check", f"state backup {quick}/copy.sqlite", "history"):
            ran = lab(*words.split())
            said = ran.out + ran.err
            assert ran.code in ((0, 1) if words.startswith(("drift", "verify")) else (0,)), (words, ran)
            assert "Traceback" not in said, said
            if words.startswith(("drift", "verify")):
                found = json.loads(ran.out)
                assert not found["gone"], (words, found["gone"][:3])
                assert not found["unknown"], (words, found["unknown"])
        with closing(sqlite3.connect(quick / "copy.sqlite")) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT count(*) FROM resource").fetchone() == (1200,)
        rounds += 1
    _, err = child.communicate()
    assert child.returncode == 0, err
    assert rounds
    assert refused
    if slipped:
        assert lab("apply", "--yes", "-q").code == 0
    whole(lab)


def test_two_gcs_at_once_free_each_blob_once(tmp_path: Path) -> None:
    """One frees, the other is told or finds nothing; what is needed stays."""
    from tests.models.conflab import Folder

    lab = Folder(tmp_path / "lab")
    for n in range(40):
        (tmp_path / f"{n}.txt").write_bytes(f"{n} ".encode() * 3000)
        lab.declare(f"m{n}", path=str(tmp_path / f"{n}.txt"))
    lab.ok("apply", "--yes")
    for n in range(1, 40):
        (lab.root / f"conf/model/m{n}.yaml").unlink()
    lab.ok("apply", "--yes", "--allow-destroy")
    here = TestLab(lab.root)
    both = [here.child("gc", "--yes") for _ in range(2)]
    told = [(c.communicate(timeout=60), c.returncode) for c in both]
    assert 0 in [code for _, code in told], told
    for (out, err), code in told:
        assert "Traceback" not in out + err, (out, err)
        assert code == 0 or "`lab gc` of" in out + err, (out, err)
    assert len(list(lab.store.glob("blobs/sha256/*/*"))) == 1
    whole(here)


def test_a_gc_frees_nothing_that_another_lab_of_the_store_is_making(tmp_path: Path) -> None:
    """Its blobs have no view yet; and an old blob that it takes up again is not freed between the two."""
    from lab.adapters import store
    from lab.core.problem import Problems
    from tests.models.conflab import Folder

    lab = Folder(tmp_path / "lab")
    (tmp_path / "one.txt").write_bytes(b"one" * 5000)
    lab.declare("one", path=str(tmp_path / "one.txt"))
    lab.ok("apply", "--yes")
    store.stamp(lab.store, "another-lab")
    (tmp_path / "two.txt").write_bytes(b"two" * 5000)
    two = store.copy(lab.store, tmp_path / "two.txt")
    assert "another lab" in lab.ok("gc", "--yes")
    assert store.path(lab.store, two).exists()
    (lab.root / "conf/model/one.yaml").unlink()
    lab.ok("apply", "--yes")
    told: list[str] = []
    with store.alone(lab.store, shared=True):
        gc = threading.Thread(target=lambda: told.append(lab.ok("gc", "--yes")))
        gc.start()
        time.sleep(0.3)
        assert not told, "it freed while a view was being made"
    gc.join()
    assert "Freed" in told[0]
    store.path(lab.store, two).unlink()
    with pytest.raises(Problems, match="lost two"):
        store.view(lab.store, "two/original", {"two.txt": two}, {"lab": "another-lab", "address": "model.two"})
    assert not (lab.store / "models/two/original").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")
def test_backups_beside_an_apply_are_whole(tmp_path: Path, stands: Bench) -> None:
    """Each snapshot made while files come, change and go is restored and compared; its ledger opens and is sound."""
    extra = {
        "backup/b": "repo: ROOT/../repo\npassword: env:LAB_BESIDE_WORD\npaths: [ROOT/out]\ninclude: [conf, state]\n"
    }
    lab = TestLab.make(tmp_path / "lab", {**_many(600, "old"), **extra})
    made = lab.run("apply", "--yes", "-q", env=stands.env)
    assert made.code == 0, made
    busy, failed = threading.Event(), []

    def applies() -> None:
        for turn in range(40):
            if busy.is_set():
                return
            keep = {k: v for k, v in _many(600, f"turn {turn}").items() if (int(k[-4:]) + turn) % 3}
            shutil.rmtree(lab.root / "conf/file")
            for name, body in keep.items():
                lab.write(f"conf/{name}.yaml", body)
            ran = lab.run("apply", "--yes", "-q", "--allow-destroy", env=stands.env)
            if ran.code:
                failed.append(ran)

    writer = threading.Thread(target=applies)
    writer.start()
    try:
        for _ in range(2):
            ran = lab.run("backup", "now", "b", env=stands.env)
            assert ran.code == 0, ran
            drill = lab.run("backup", "drill", "b", env=stands.env)
            assert drill.code == 0, drill
            target = tmp_path / "back"
            subprocess.run(
                ["restic", "-r", str(tmp_path / "repo"), "restore", "latest", "--target", str(target)],
                env={**os.environ, **stands.env, "RESTIC_PASSWORD": stands.env["LAB_BESIDE_WORD"]},
                check=True,
                capture_output=True,
            )
            (ledger,) = target.rglob("databases/**/ledger.sqlite")
            with closing(sqlite3.connect(ledger)) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert db.execute("SELECT count(*) FROM resource").fetchone()[0] >= 400
            shutil.rmtree(target)
    finally:
        busy.set()
        writer.join()
    assert not failed, failed[0]
    lab.run("apply", "--yes", "-q", "--allow-destroy", env=stands.env)
    whole(lab)
