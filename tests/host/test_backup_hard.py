"""Whatever a backup is killed by, the last good snapshot restores bit for bit and the next backup works.

Proves S0-US-008-4 and the kill, disk-full and large-file cases of the backup kind.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.app import backup
from lab.app.lab import Lab
from lab.app.restore import restore
from lab.core.address import Address
from lab.core.problem import Problems
from tests.host.test_backup import cli, lab, tree

__all__ = ["lab"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")]


def test_killed_at_random_moments_the_last_good_snapshot_restores_and_the_next_backup_works(lab: Lab) -> None:
    dice = random.Random(7)
    states: list[dict[str, str]] = []

    def change() -> None:
        (lab.root / "data/big").write_bytes(dice.randbytes(20_000_000))
        states.append(tree(lab.root / "data"))

    change()
    begun = time.monotonic()
    backup.now(lab)
    usual = time.monotonic() - begun
    good, killed = 0, 0
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(60):
        if killed == 20:
            break
        change()
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "-C", str(lab.root), "backup", "now"],
            env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(dice.uniform(0.3, 1.1 * usual))
        except subprocess.TimeoutExpired:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            good = len(states) - 1
    assert killed == 20
    restored = lab.root.parent / "aside"
    restore(lab, to=restored)
    # The last one that said it was done, or one that was killed after its snapshot was whole.
    assert tree(restored / "data") in states[good:]
    backup.now(lab)
    backup.check(lab, subset="100%")
    shutil.rmtree(restored)
    restore(lab, to=restored)
    assert tree(restored / "data") == tree(lab.root / "data")


def test_a_gigabyte_grows_by_what_changed_is_thinned_checked_and_comes_back(lab: Lab) -> None:
    """1.1 GB in 2,200 files: first, incremental, prune, a check that reads all, and a restore bit for bit."""
    dice = random.Random(9)
    for n in range(1100):
        folder = lab.root / f"data/{n % 37}"
        folder.mkdir(exist_ok=True)
        (folder / f"{n}.bin").write_bytes(dice.randbytes(1_000_000))
        (folder / f"{n}.txt").write_text(f"{n}\n")
    (first,) = backup.now(lab)
    assert first["added"] > 1_090_000_000
    (second,) = backup.now(lab)
    assert second["added"] < 3_000_000, "nothing changed but the log"
    for round_ in range(3):
        for n in range(10):
            (lab.root / f"data/0/{37 * n}.bin").write_bytes(dice.randbytes(1_000_000))
        (last,) = backup.now(lab)
        assert 10_000_000 < last["added"] < 14_000_000, round_
    assert len(backup.snapshots(lab)) == 3, "thinned"
    repo = lab.root.parent / "repo"
    size = sum(p.stat().st_size for p in repo.rglob("*") if p.is_file())
    assert size < 1_180_000_000, "what only old snapshots held is gone"
    backup.check(lab, subset="100%")
    good = tree(lab.root / "data")
    shutil.rmtree(lab.root / "data")
    restore(lab)
    assert tree(lab.root / "data") == good


@pytest.mark.root
def test_a_full_disk_is_told_and_earlier_snapshots_stay_sound(lab: Lab, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting a small volume needs root")
    volume = tmp_path / "volume"
    volume.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(volume)], capture_output=True).returncode:
        pytest.skip("no mount here")
    try:
        text = (lab.root / "conf/backup/nightly.yaml").read_text().replace("repo: ../repo", f"repo: {volume}/repo")
        (lab.root / "conf/backup/nightly.yaml").write_text(text)
        assert cli(lab.root, "apply", "--yes").returncode == 0
        backup.now(lab)
        good = tree(lab.root / "data")
        (lab.root / "data/big").write_bytes(random.Random(3).randbytes(30_000_000))
        with pytest.raises(Problems, match="is full"):
            backup.now(lab)
        backup.check(lab, subset="100%")
        restore(lab, to=tmp_path / "aside")
        assert tree(tmp_path / "aside/data") == good
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server of one folder."""
    (tmp_path / "site").mkdir()
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(tmp_path / "site"))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_can_be_fetched_again_is_recorded_and_what_cannot_is_copied(lab: Lab, site: str, tmp_path: Path) -> None:
    dice = random.Random(5)
    (tmp_path / "site/far.bin").write_bytes(dice.randbytes(8_000_000))
    own = tmp_path / "own.bin"
    own.write_bytes(dice.randbytes(3_000_000))
    sha = hashlib.sha256((tmp_path / "site/far.bin").read_bytes()).hexdigest()
    (lab.root / "conf/model").mkdir()
    (lab.root / "conf/model/far.yaml").write_text(f"url: {site}/far.bin\nsha256: {sha}\nallow_pickle: true\n")
    (lab.root / "conf/model/mine.yaml").write_text(f"path: {own}\nallow_pickle: true\n")
    head = lab.root / "conf/lab.yaml"
    head.write_text(head.read_text().replace("file: '*'", "file: '*', model: '*'"))
    config = lab.root / "conf/backup/nightly.yaml"
    config.write_text(config.read_text() + "include: [conf, state, models]\n")
    done = cli(lab.root, "apply", "--yes")
    assert done.returncode == 0, done
    fresh = Lab.find(lab.root)
    (told,) = backup.now(fresh)
    assert told["left"] == 1
    assert 3_000_000 < told["added"] < 5_000_000
    far = Path(str(fresh.records[Address("model.far")].facts["view"]))
    assert far.exists()
    shutil.rmtree(fresh.store)
    found = restore(fresh)
    assert found["fetch"] == ["model.far"]
    mine = Path(str(fresh.records[Address("model.mine")].facts["view"]))
    assert [p.stat().st_size for p in mine.rglob("own.bin")] == [3_000_000]
    assert not list(far.rglob("far.bin")) or not next(far.rglob("far.bin")).exists()
    done = cli(lab.root, "apply", "--yes")
    assert done.returncode == 0, done
    assert "No changes" in cli(lab.root, "plan").stdout
