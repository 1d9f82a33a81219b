"""The same bytes are kept once, views are replaced whole, and what somebody put there is not lost. (S0-US-004-3)"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lab.adapters import clone, store
from lab.core import layout
from lab.core.problem import Problems


def _file(folder: Path, name: str, data: bytes) -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def test_two_names_of_the_same_bytes_are_one_blob_and_dropping_one_keeps_the_other(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store.stamp(root, "lab1")
    first = store.add(root, _file(tmp_path, "a", b"x" * 100_000))
    second = store.add(root, _file(tmp_path, "b", b"x" * 100_000))
    assert first == second
    one = store.view(root, "one/original", {"sub/w.bin": first}, {"lab": "lab1"})
    two = store.view(root, "two/original", {"w.bin": first}, {"lab": "lab1"})
    sizes = {(s.st_ino, s.st_size) for f in root.rglob("*") if f.is_file() and (s := f.stat()).st_size >= 100_000}
    assert len(sizes) == 1
    assert (one / "sub/w.bin").read_bytes() == (two / "w.bin").read_bytes()
    store.drop(one)
    assert not one.exists()
    assert not one.parent.exists()
    assert (two / "w.bin").read_bytes() == b"x" * 100_000
    assert stat.S_IMODE(store.path(root, first).stat().st_mode) == 0o444


def test_a_view_is_replaced_whole_and_strange_files_in_it_are_kept_aside(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store.stamp(root, "lab1")
    a, b = (store.add(root, _file(tmp_path, "f", d)) for d in (b"a", b"b"))
    folder = store.view(root, "m/original", {"x": a, "y": a}, {"lab": "lab1", "digest": "d1"})
    _file(folder, "notes.txt", b"mine")
    store.view(root, folder, {"x": b}, {"lab": "lab1", "digest": "d2"})
    assert sorted(os.listdir(folder)) == [".lab.json", "x"]
    assert (store.provenance(folder) or {})["digest"] == "d2"
    assert [f.read_bytes() for f in (root / "stray").rglob("notes.txt")] == [b"mine"]
    assert [p.name for p in folder.parent.iterdir()] == ["original"]


def test_a_store_moved_to_another_place_still_reads(tmp_path: Path) -> None:
    root = tmp_path / "store"
    sha = store.add(root, _file(tmp_path, "f", b"weights"))
    store.view(root, "fam/m/original", {"deep/er/x": sha}, {})
    moved = root.rename(tmp_path / "elsewhere")
    assert (moved / "models/fam/m/original/deep/er/x").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".lab.json"])
def test_a_file_name_that_leads_out_of_the_view_is_refused(tmp_path: Path, name: str) -> None:
    sha = store.add(tmp_path, _file(tmp_path, "f", b"x"))
    with pytest.raises(Problems, match="no name"):
        store.view(tmp_path, "m/original", {name: sha}, {})
    assert not (tmp_path / "models/m/original").exists()


def test_two_labs_share_a_store_but_not_a_view(tmp_path: Path) -> None:
    store.stamp(tmp_path, "one")
    store.stamp(tmp_path, "two")
    assert store.stamped(tmp_path) == ("one", "two")
    a, b = (store.add(tmp_path, _file(tmp_path, "f", d)) for d in (b"a", b"b"))
    store.view(tmp_path, "m/original", {"x": a}, {"lab": "one"})
    with pytest.raises(Problems, match="another lab"):
        store.view(tmp_path, "m/original", {"x": b}, {"lab": "two"})


def test_a_folder_that_is_no_view_is_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "models/m/original"
    mine.mkdir(parents=True)
    _file(mine, "thesis.txt", b"years")
    with pytest.raises(Problems, match="in the way"):
        store.view(tmp_path, "m/original", {}, {})
    assert (mine / "thesis.txt").read_bytes() == b"years"


def test_folders_change_places(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        _file(tmp_path / name, name, b"")
    clone.exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_model_lives_where_it_says_else_where_a_rule_says_else_in_the_default_store() -> None:
    lab = {"stores": {"bulk": {"path": "/v/bulk", "tier": "slow", "models": ["*_671b"]}, "usb": "/v/usb/"}}
    assert layout.root(lab, "/s", "tiny") == "/s"
    assert layout.root(lab, "/s", "r1_671b") == "/v/bulk"
    assert layout.root(lab, "/s", "r1_671b", "usb") == "/v/usb"
    assert layout.root(lab, "/s", "tiny", "slow") == "/v/bulk"
    assert layout.choose(lab, "/s", "tiny", "nowhere") is None
    assert layout.view("/s", "m", "fam", "m.Q4") == "/s/models/fam/m/m.Q4"
