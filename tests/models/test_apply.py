"""Models survive kills, full disks, read-only stores and each other. (S0-5.2-2, S0-US-009-5)"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import fetch
from tests.models.conflab import Folder
from tests.models.servers import Server, sha256

pytestmark = pytest.mark.slow


def test_finished_files_of_an_unfinished_model_are_not_fetched_again(server: Server, tmp_path: Path) -> None:
    lab = Folder(tmp_path / "lab")
    names = [f"f{n}.txt" for n in range(3)]
    for name in names:
        (server.root / name).write_bytes(name.encode() * 20_000)
    urls = {n: {"url": f"{server.url}/{n}", "sha256": sha256(n.encode() * 20_000)} for n in names}
    lab.declare("m", url=urls)
    server.faults["f2.txt"] = ["error:404"]
    assert lab.run("apply", "--yes")[0] == 1
    finished = [n for n in names if any(lab.store.rglob(sha256(n.encode() * 20_000)))]
    before = {n: len(server.gets(n)) for n in names}
    lab.ok("apply", "--yes")
    assert {n: len(server.gets(n)) for n in finished} == {n: before[n] for n in finished}
    assert len(server.gets("f2.txt")) == 2


def test_damage_is_not_taken_for_what_a_failed_apply_had_finished(server: Server, tmp_path: Path) -> None:
    """Of a model without declared hashes: what was recorded says how it was, also after a repair that failed."""
    lab = Folder(tmp_path / "lab")
    (server.root / "m.txt").write_bytes(b"m" * 1000)
    lab.declare("m", url=f"{server.url}/m.txt")
    lab.ok("apply", "--yes")
    (blob,) = lab.store.glob("blobs/sha256/*/*")
    blob.chmod(0o644)
    blob.write_bytes(b"spoiled" + b"m" * 993)
    server.faults["m.txt"] = ["error:404"]
    assert lab.run("apply", "--yes")[0] == 1
    lab.ok("apply", "--yes")
    assert blob.read_bytes() == b"m" * 1000
    assert "No changes" in lab.ok("plan")


def test_a_full_disk_is_told_before_a_byte_is_fetched_and_again_when_it_fills_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Folder(tmp_path / "lab")
    (server.root / "m.txt").write_bytes(b"x" * 3_000_000)
    lab.declare("m", url=f"{server.url}/m.txt", sha256=sha256(b"x" * 3_000_000), size=3_000_000)
    monkeypatch.setattr(fetch, "MARGIN", 1 << 60)
    code, _ = lab.run("apply", "--yes")
    assert (code, "do not fit" in lab.told.getvalue()) == (1, True)
    assert server.log == []
    monkeypatch.undo()

    # A real write error of the operating system, in a process whose files may not grow past 1 MB.
    words = [sys.executable, "-m", "lab", "-C", str(lab.root), "apply", "--yes"]

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        words, cwd=Path(__file__).parents[2], preexec_fn=small, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    lab.ok("apply", "--yes")
    assert any(r for r, _ in server.gets("m.txt")), "what had come was continued"


def test_a_full_volume_is_a_clear_problem_and_continues_elsewhere(server: Server, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(volume)], check=False).returncode:
        pytest.skip("mounting a small volume needs root")
    try:
        lab = Folder(tmp_path / "lab", stores={"small": str(volume)})
        (server.root / "m.txt").write_bytes(b"x" * 3_000_000)
        block = {"url": f"{server.url}/m.txt", "sha256": sha256(b"x" * 3_000_000)}
        lab.declare("m", **block, store="small")
        code, _ = lab.run("apply", "--yes")
        assert code == 1
        assert "no space left" in lab.told.getvalue()
        assert not list(volume.glob("blobs/sha256/*/*"))
        lab.declare("m", **block)
        lab.ok("apply", "--yes")
        assert "No changes" in lab.ok("plan")
    finally:
        subprocess.run(["umount", str(volume)], check=True)


def test_two_volumes_one_is_unmounted_then_back_then_a_third_takes_the_model(server: Server, tmp_path: Path) -> None:
    fast, bulk = tmp_path / "fast", tmp_path / "bulk"
    for volume in (fast, bulk):
        volume.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(volume)], check=False).returncode:
            pytest.skip("mounting volumes needs root")
    try:
        rules = {"fast": {"path": str(fast)}, "bulk": {"path": str(bulk), "tier": "slow", "models": ["big_*"]}}
        lab = Folder(tmp_path / "lab", stores=rules)
        for name in ("small_a", "big_b"):
            (server.root / f"{name}.txt").write_bytes(name.encode() * 1000)
            lab.declare(name, url=f"{server.url}/{name}.txt", sha256=sha256(name.encode() * 1000))
        lab.declare("small_a", url=f"{server.url}/small_a.txt", sha256=sha256(b"small_a" * 1000), store="fast")
        lab.ok("apply", "--yes")
        assert (bulk / "models/big_b/original/big_b.txt").exists()
        assert (fast / "models/small_a/original/small_a.txt").exists()
        server.log.clear()
        # A lazily detached volume leaves an empty folder, as an unplugged disk does.
        subprocess.run(["umount", "-l", str(bulk)], check=True)
        plan = json.loads(lab.run("plan", "--json")[1])
        (change,) = [c for c in plan["changes"] if c["address"] == "model.big_b"]
        assert "not mounted" in change["unknown"]
        assert plan["summary"].get("destroy", 0) == plan["summary"].get("create", 0) == 0
        lab.run("apply", "--yes")
        assert server.log == []
    finally:
        for volume in (fast, bulk):
            subprocess.run(["umount", "-l", str(volume)], check=False, capture_output=True)


def test_two_labs_fetch_the_same_file_into_one_store_at_once(server: Server, tmp_path: Path) -> None:
    (server.root / "m.txt").write_bytes(b"m" * 500_000)
    labs = [Folder(tmp_path / n, id=f"lab-number-{n}", store=str(tmp_path / "store")) for n in ("a", "b")]
    for n, lab in enumerate(labs):
        lab.declare(f"m{n}", url=f"{server.url}/m.txt", sha256=sha256(b"m" * 500_000))
    server.throttle = 0.005
    processes = [lab.process("apply", "--yes") for lab in labs]
    told = [p.communicate(timeout=60)[0].decode() for p in processes]
    assert [p.returncode for p in processes] == [0, 0], told
    assert len(server.gets("m.txt")) == 1
    for lab in labs:
        assert "No changes" in lab.ok("plan")


def test_a_store_that_cannot_be_written_is_a_problem(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lab = Folder(tmp_path / "lab", store=str(tmp_path / "file"))
    (server.root / "m.txt").write_bytes(b"m")
    lab.declare("m", url=f"{server.url}/m.txt", sha256=sha256(b"m"))
    code, text = lab.run("apply", "--yes")
    assert code == 1
    assert "cannot be made" in text + lab.told.getvalue()
