"""A volume that goes away in the middle of a download, and comes back."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.labs import TestLab
from tests.models.conflab import Folder
from tests.models.servers import serving, sha256


def mounted(volume: Path) -> bool:
    return not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(volume)], check=False).returncode


def test_a_volume_that_goes_away_in_the_middle_of_a_download(tmp_path: Path) -> None:
    """It is told, nothing is put into the empty mount point, nothing is fetched meanwhile, and all is well after."""
    volume, shelf = tmp_path / "volume", tmp_path / "shelf"
    for folder in (volume, shelf, tmp_path / "served"):
        folder.mkdir()
    if not mounted(shelf):
        pytest.skip("mounting a volume needs root")
    try:
        subprocess.run(["mount", "--bind", str(shelf), str(volume)], check=True)
        with serving(tmp_path / "served") as server:
            data = {"first": b"1" * 5000, "second": b"2" * 8_000_000}
            lab = Folder(tmp_path / "lab", stores={"away": str(volume)})
            for name, content in data.items():
                (server.root / f"{name}.txt").write_bytes(content)
            lab.declare("first", url=f"{server.url}/first.txt", sha256=sha256(data["first"]), store="away")
            lab.ok("apply", "--yes")
            lab.declare("second", url=f"{server.url}/second.txt", sha256=sha256(data["second"]), store="away")
            server.throttle = 0.02
            process = lab.process("apply", "--yes")
            part, end = volume / "incoming" / f"{sha256(data['second'])}.part", time.monotonic() + 60
            while not (part.exists() and part.stat().st_size > 100_000):
                assert time.monotonic() < end
                time.sleep(0.01)
            subprocess.run(["umount", "-l", str(volume)], check=True)
            told = process.communicate(timeout=120)
            said = "".join(x.decode() for x in told if x)
            assert process.returncode == 1, said
            assert "Traceback" not in said
            assert "fault in Lab" not in said
            assert [f for f in volume.rglob("*") if f.is_file()] == []
            server.log.clear()
            lab.run("apply", "--yes")
            assert server.log == [], "nothing is fetched into the mount point"
            assert [f for f in volume.rglob("*") if f.is_file()] == []
            subprocess.run(["mount", "--bind", str(shelf), str(volume)], check=True)
            server.throttle = 0
            lab.ok("apply", "--yes")
            assert "No changes" in lab.ok("plan")
            assert (volume / "models/first/original/first.txt").read_bytes() == data["first"]
            assert (volume / "models/second/original/second.txt").read_bytes() == data["second"]
    finally:
        for folder in (volume, shelf):
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@pytest.mark.parametrize("model", [True, False])
def test_rows_in_a_store_whose_volume_is_away_are_not_taken_for_gone(tmp_path: Path, source: Path, model: bool) -> None:
    """Not made again in the mount point, nor new ones: that would look like the store, and all else as gone from it."""
    rows = source.parent / "rows"
    lab = TestLab.make(tmp_path / "lab", {"dataset/rows": f"path: {rows}\n"})
    if model:
        lab.write("conf/model/tiny.yaml", f"path: {source}\nplace: copy\n")
    assert lab("apply", "--yes").code == 0
    store, shelf = lab.root / "store", lab.root / "shelf"
    store.rename(shelf)
    store.mkdir()
    planned = lab("plan").out
    assert "dataset.rows  not known" in planned
    assert "it is gone" not in planned
    lab.write("conf/dataset/more.yaml", f"path: {rows}\n")
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert f"{store} is not the store it was" in ran.err
    assert not [p for p in store.iterdir() if not p.name.startswith(".ledger")]
    shutil.rmtree(store)
    shelf.rename(store)
    assert lab("apply", "--yes").code == 0
    assert "No changes" in lab("plan").out
    assert lab("verify").code == 0
