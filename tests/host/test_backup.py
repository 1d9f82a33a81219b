"""What was backed up comes back bit for bit: after kills, full disks, damage, wrong passwords and stale locks.

Real restic and real SQLite. Proves S0-US-008-1, S0-US-008-2, S0-US-008-3, S0-US-008-4.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lab.adapters.restic import Repository
from lab.app import backup
from lab.app._saved import copy_database
from lab.app.lab import Lab
from lab.app.restore import restore
from lab.core.problem import Problems

pytestmark = pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")

LAB = (
    "lab: {name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: STORE}\nresources: {backup: '*', file: '*'}\n"
)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An applied lab with one backup, one small file and a live database."""
    monkeypatch.setenv("LAB_TEST_PASSWORD", "correct horse")
    monkeypatch.setenv("RESTIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "lab"
    (root / "conf/backup").mkdir(parents=True)
    (root / "conf/file").mkdir()
    (root / "conf/lab.yaml").write_text(LAB.replace("STORE", str(tmp_path / "store")))
    (root / "conf/backup/nightly.yaml").write_text(
        "repo: ../repo\npassword: env:LAB_TEST_PASSWORD\npaths: [data]\nlarge: 1MB\nkeep: {last: 3, daily: 0, weekly: 0, monthly: 0}\n"  # noqa: E501
    )
    (root / "conf/file/motd.yaml").write_text("path: out/motd\ncontent: hello\n")
    (root / "data").mkdir()
    (root / "data/notes.txt").write_text("weeks of work\n")
    (root / "data/odd [name]*.txt").write_text("odd\n")
    with sqlite3.connect(root / "data/runs.sqlite") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE run (n)")
        db.executemany("INSERT INTO run VALUES (?)", [(n,) for n in range(100)])
    assert cli(root, "apply", "--yes").returncode == 0, cli(root, "apply", "--yes")
    return Lab.find(root)


def cli(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "lab", "-C", str(root), *words], env=env, capture_output=True, text=True
    )


def tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and "sqlite" not in p.name
    }


def test_a_backup_is_planned_applied_and_then_there_is_nothing_to_do(lab: Lab) -> None:
    done = cli(lab.root, "plan")
    assert "No changes" in done.stdout, done
    settings = lab.state / "backup/nightly.json"
    settings.write_text(settings.read_text().replace('"last": 3', '"last": 9'))
    done = cli(lab.root, "plan", "--json")
    (change,) = [c for c in json.loads(done.stdout)["changes"] if c["address"] == "backup.nightly"]
    assert [d["field"] for d in change["drift"]] == ["keep.last"]


def test_destroying_a_backup_leaves_its_snapshots(lab: Lab) -> None:
    backup.now(lab)
    (lab.root / "conf/backup/nightly.yaml").unlink()
    done = cli(lab.root, "apply", "--yes")
    assert done.returncode == 0, done
    assert not (lab.state / "backup/nightly.json").exists()
    assert Repository(str(lab.root.parent / "repo"), lambda: "correct horse").snapshots()


def test_all_comes_back_bit_for_bit_and_the_database_is_whole(lab: Lab) -> None:
    before = tree(lab.root / "data") | tree(lab.root / "conf")
    live = sqlite3.connect(lab.root / "data/runs.sqlite")
    live.execute("INSERT INTO run VALUES (100)")
    live.commit()
    backup.now(lab)
    live.close()
    shutil.rmtree(lab.root / "data")
    shutil.rmtree(lab.state / "runs", ignore_errors=True)
    (lab.state / "ledger.sqlite").unlink()
    found = restore(lab)
    assert found["files"] >= 6
    assert tree(lab.root / "data") | tree(lab.root / "conf") == before
    with sqlite3.connect(lab.root / "data/runs.sqlite") as db:
        assert db.execute("SELECT count(*) FROM run").fetchone() == (101,)
    done = cli(lab.root, "plan")
    assert "No changes" in done.stdout, done


def test_one_thing_or_an_earlier_time_can_be_restored_alone(lab: Lab, tmp_path: Path) -> None:
    first = backup.now(lab)[0]["snapshot"][:8]
    (lab.root / "conf/file/motd.yaml").write_text("path: out/motd\ncontent: later\n")
    backup.now(lab)
    restore(lab, ["file.motd"], at=first, to=tmp_path / "aside")
    assert "hello" in (tmp_path / "aside/conf/file/motd.yaml").read_text()
    assert not (tmp_path / "aside/data").exists()
    with pytest.raises(Problems, match="no snapshot is as old"):
        restore(lab, at="2001-01-01")
    with pytest.raises(Problems, match="neither a time nor a snapshot"):
        restore(lab, at="yesterdayish")


def test_the_drill_really_restores_and_its_age_is_known(lab: Lab) -> None:
    assert backup.status(lab)[0]["late"]
    backup.now(lab)
    assert backup.drill(lab)["files"] >= 6
    status = backup.status(lab)[0]
    assert status["drill"] is not None
    assert status["drill"] < 60
    assert not status["late"]
    assert not (lab.state / "backup/drill/nightly").exists()


def test_old_snapshots_are_thinned_as_declared(lab: Lab) -> None:
    for n in range(5):
        (lab.root / "data/notes.txt").write_text(f"{n}\n")
        backup.now(lab)
    assert len(backup.snapshots(lab)) == 3


def test_snapshots_are_kept_by_day_week_and_month(lab: Lab) -> None:
    config = lab.root / "conf/backup/nightly.yaml"
    text = config.read_text().replace("{last: 3, daily: 0, weekly: 0, monthly: 0}", "{daily: 3, weekly: 0, monthly: 2}")
    config.write_text(text)
    assert cli(lab.root, "apply", "--yes").returncode == 0
    repository = Repository(str(lab.root.parent / "repo"), lambda: "correct horse")
    begin = datetime(2026, 3, 20, 12).astimezone()
    for day in range(20):
        (lab.root / "data/notes.txt").write_text(f"{day}\n")
        repository.backup(
            [str(lab.root / "data")], (), backup._tags(lab, "nightly"), lambda *a: None, begin + timedelta(days=day)
        )
    backup.now(lab)
    times = [s["time"][:10] for s in backup.snapshots(lab)]
    assert times[:-1] == ["2026-04-07", "2026-04-08"], "of each day the last, of each month the last"
    assert len(times) == 3


def test_with_the_clock_set_back_the_last_snapshot_made_is_the_newest_and_is_kept(lab: Lab) -> None:
    repository = Repository(str(lab.root.parent / "repo"), lambda: "correct horse")
    ahead = datetime.now().astimezone() + timedelta(days=400)
    saved = backup.now(lab)[0]["snapshot"]
    for _ in range(3):
        repository.backup([str(lab.root / "data")], (), backup._tags(lab, "nightly"), lambda *a: None, ahead)
    (lab.root / "data/notes.txt").write_text("after the clock was set back\n")
    made = backup.now(lab)[0]["snapshot"]
    found = [s["id"] for s in backup.snapshots(lab)]
    assert found[-1] == made[:8]
    assert saved[:8] not in found, "three are kept, and the last one made is among them"
    assert not backup.status(lab)[0]["late"]
    (lab.root / "data/notes.txt").unlink()
    restore(lab)
    assert (lab.root / "data/notes.txt").read_text() == "after the clock was set back\n"


def test_a_wrong_password_is_told_and_changes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    backup.now(lab)
    monkeypatch.setenv("LAB_TEST_PASSWORD", "wrong")
    with pytest.raises(Problems, match="the password does not open"):
        backup.now(lab)
    monkeypatch.setenv("LAB_TEST_PASSWORD", "correct horse")
    assert len(backup.snapshots(lab)) == 1


def test_a_missing_source_and_a_missing_repository_are_problems_not_empty_backups(lab: Lab) -> None:
    backup.now(lab)
    shutil.move(lab.root / "data", lab.root / "away")
    with pytest.raises(Problems, match="is not there"):
        backup.now(lab)
    shutil.move(lab.root / "away", lab.root / "data")
    shutil.rmtree(lab.root.parent / "repo")
    with pytest.raises(Problems, match="there is no repository"):
        backup.now(lab)


def test_damage_that_only_reading_shows_is_found_and_the_other_repository_restores(lab: Lab) -> None:
    text = (lab.root / "conf/backup/nightly.yaml").read_text()
    (lab.root / "conf/backup/nightly.yaml").write_text(text + "also: [../second]\n")
    assert cli(lab.root, "apply", "--yes").returncode == 0
    (lab.root / "data/random").write_bytes(random.Random(1).randbytes(300_000))
    before = tree(lab.root / "data")
    backup.now(lab)
    packs = [p for p in (lab.root.parent / "repo/data").rglob("*") if p.is_file()]
    largest = max(packs, key=lambda p: p.stat().st_size)
    largest.chmod(0o600)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 0xFF
    largest.write_bytes(data)
    backup.check(lab)
    with pytest.raises(Problems, match="is damaged"):
        backup.check(lab, subset="100%")
    shutil.rmtree(lab.root / "data")
    restore(lab)
    assert tree(lab.root / "data") == before


def test_a_dead_ones_lock_stops_nothing(lab: Lab) -> None:
    backup.now(lab)
    repo = Repository(str(lab.root.parent / "repo"), lambda: "correct horse")
    with repo._password() as read:
        held = subprocess.Popen(
            repo.command("check", "--read-data", password=read), pass_fds=(read,), stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            if list((lab.root.parent / "repo/locks").iterdir()):
                break
            time.sleep(0.02)
        held.send_signal(signal.SIGKILL)
        held.wait()
    assert list((lab.root.parent / "repo/locks").iterdir())
    for n in range(4):
        (lab.root / "data/notes.txt").write_text(f"{n}\n")
        backup.now(lab)
    assert len(backup.snapshots(lab)) == 3


def test_a_database_is_copied_consistently_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "live.sqlite"
    stop = threading.Event()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE pair (a, b)")

    def write() -> None:
        with sqlite3.connect(path, timeout=30) as db:
            n = 0
            while not stop.is_set():
                db.execute("INSERT INTO pair VALUES (?, ?)", (n, n))
                db.execute("UPDATE pair SET b = a")
                db.commit()
                n += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(5):
            time.sleep(0.05)
            copy_database(str(path), tmp_path / f"copy{n}")
    finally:
        stop.set()
        writer.join()
    for n in range(5):
        with sqlite3.connect(tmp_path / f"copy{n}") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT count(*) FROM pair WHERE a <> b").fetchone() == (0,)


def test_the_password_is_in_no_process_list_file_or_log(lab: Lab) -> None:
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        import psutil

        while not stop.is_set():
            for p in psutil.Process().children(recursive=True):
                try:
                    seen.append(
                        " ".join(p.cmdline())
                        + " ".join(f"{k}={v}" for k, v in p.environ().items() if k.startswith("RESTIC"))
                    )
                except psutil.Error:
                    continue
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    backup.now(lab)
    stop.set()
    watcher.join()
    assert any("restic" in s for s in seen)
    assert not any("correct horse" in s for s in seen)
    for path in lab.state.rglob("*"):
        assert not path.is_file() or b"correct horse" not in path.read_bytes(), path


def test_links_to_folders_come_back_and_a_linked_path_is_followed(lab: Lab) -> None:
    (lab.root / "data/latest").symlink_to("deep")
    (lab.root / "data/deep").mkdir()
    (lab.root / "data/deep/x").write_text("x")
    (lab.root / "elsewhere").mkdir()
    (lab.root / "elsewhere/y").write_text("y")
    (lab.root / "linked").symlink_to("elsewhere")
    config = lab.root / "conf/backup/nightly.yaml"
    config.write_text(config.read_text().replace("paths: [data]", "paths: [data, linked]\nexclude: ['deep/*.tmp']"))
    (lab.root / "data/deep/z.tmp").write_text("not kept")
    assert cli(lab.root, "apply", "--yes").returncode == 0
    backup.now(lab)
    shutil.rmtree(lab.root / "data")
    shutil.rmtree(lab.root / "elsewhere")
    restore(lab)
    assert os.readlink(lab.root / "data/latest") == "deep"
    assert (lab.root / "data/latest/x").read_text() == "x"
    assert (lab.root / "linked/y").read_text() == "y"
    assert not (lab.root / "data/deep/z.tmp").exists()
    assert backup.drill(lab)["files"] >= 6, "what is excluded is not missed"


def test_yesterday_s_configuration_comes_back_where_today_s_cannot_be_read(lab: Lab) -> None:
    backup.now(lab)
    (lab.root / "conf/lab.yaml").write_text("lab: [broken\n")
    done = cli(lab.root, "restore", "conf")
    assert done.returncode == 0, done
    assert "No changes" in cli(lab.root, "plan").stdout


def test_environments_are_not_copied_but_made_again_from_their_locks(lab: Lab) -> None:
    (lab.state / "envs/e/bin").mkdir(parents=True)
    (lab.state / "envs/e/bin/python").write_text("large")
    backup.now(lab)
    aside = lab.root.parent / "aside"
    restore(lab, to=aside)
    assert (aside / "state/ledger.sqlite").exists()
    assert not (aside / "state/envs").exists()
