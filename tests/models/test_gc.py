"""`lab gc` frees what nothing needs, and nothing else. (S0-US-004-3)"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lab.adapters import store
from tests.models import make
from tests.models.conflab import Folder
from tests.models.servers import sha256


@pytest.fixture
def lab(tmp_path: Path) -> Folder:
    lab = Folder(tmp_path / "lab")
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_bytes(name.encode() * 5000)
        lab.declare(name, path=str(tmp_path / f"{name}.txt"))
    lab.ok("apply", "--yes")
    return lab


def blobs(lab: Folder) -> set[str]:
    return {f.name for f in lab.store.glob("blobs/sha256/*/*")}


ONE, TWO = (sha256(n * 5000) for n in (b"one", b"two"))


def test_what_is_no_longer_declared_is_shown_then_freed_and_says_how_many_bytes(lab: Folder) -> None:
    assert "Nothing to free" in lab.ok("gc", "--yes")
    (lab.root / "conf/model/one.yaml").unlink()
    lab.ok("apply", "--yes")
    assert blobs(lab) == {ONE, TWO}
    code, text = lab.run("gc")
    assert code == 1
    assert "add `--yes`" in text
    assert blobs(lab) == {ONE, TWO}
    assert lab.json("gc", "--dry-run")["bytes"] >= 15000
    assert "Freed" in lab.ok("gc", "--yes")
    assert blobs(lab) == {TWO}
    assert "No changes" in lab.ok("plan")
    assert not list(lab.store.glob("dropped/*"))
    assert "as laid out" in lab.ok("models", "check")


def test_earlier_generations_are_kept_when_asked(lab: Folder) -> None:
    (lab.root / "conf/model/one.yaml").unlink()
    lab.ok("apply", "--yes")
    text = lab.ok("gc", "--yes", "--generations", "2")
    assert "kept for a kept generation" in text
    assert blobs(lab) == {ONE, TWO}


def test_another_profiles_declaration_a_lock_and_a_run_keep_their_bytes(lab: Folder) -> None:
    (lab.root / "conf/model/one.yaml").unlink()
    lab.ok("apply", "--yes")
    for place in ("conf/lock/model/other.yaml", "state/runs/r1/run.json"):
        file = lab.root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{{"sha256": "{ONE}"}}')
        assert "Nothing to free" in lab.ok("gc", "--yes")
        file.unlink()
    lab.ok("gc", "--yes")
    assert blobs(lab) == {TWO}


def test_another_labs_models_in_the_same_store_are_left_alone(lab: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other", id="another-lab", store=str(lab.store))
    (tmp_path / "three.txt").write_bytes(b"three")
    other.declare("three", path=str(tmp_path / "three.txt"))
    other.ok("apply", "--yes")
    assert "Nothing to free" in lab.ok("gc", "--yes")
    (lab.root / "conf/model/one.yaml").unlink()
    lab.ok("apply", "--yes")
    lab.ok("gc", "--yes")
    assert blobs(lab) == {TWO, sha256(b"three")}
    assert "No changes" in other.ok("plan")


def test_old_partial_downloads_and_what_a_kill_left_are_freed_young_ones_stay(lab: Folder) -> None:
    folder = lab.store / "incoming"
    for key, days in (("a" * 64, 30), ("b" * 64, 0), (ONE, 0)):
        for end in ("part", "json"):
            (folder / f"{key}.{end}").write_text("{}")
            os.utime(folder / f"{key}.{end}", (time.time() - days * 86400,) * 2)
    (folder / "converted.gguf").write_text("x")
    (lab.store / "models/one/.original.aaaa.lab-tmp").mkdir()
    lab.ok("gc", "--yes")
    assert sorted(f.name for f in folder.iterdir()) == [f"{'b' * 64}.json", f"{'b' * 64}.part"]
    assert not list(lab.store.rglob("*.lab-tmp"))


def test_the_next_apply_removes_what_a_kill_left_also_where_nothing_is_to_do(lab: Folder) -> None:
    left = [
        lab.store / "models/one/.original.aaaa.lab-tmp/x/file",
        lab.store / "incoming/copy-aaaa.lab-tmp",
        lab.store / "dropped/.a.json.lab-tmp",
        lab.store / "..lab.json.lab-tmp",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    assert "No changes" in lab.ok("apply", "--yes")
    assert not list(lab.store.rglob("*.lab-tmp"))
    assert "as laid out" in lab.ok("models", "check")
    assert blobs(lab) == {ONE, TWO}


def test_what_another_lab_may_be_building_in_a_shared_store_is_left_alone_for_an_hour(
    lab: Folder, tmp_path: Path
) -> None:
    other = Folder(tmp_path / "other", id="other-lab", store=str(lab.store))
    other.declare("three", path=str(tmp_path / "one.txt"))
    other.ok("apply", "--yes")
    building = lab.store / "models/three/.original.bbbb.lab-tmp"
    building.mkdir()
    lab.ok("apply", "--yes")
    lab.ok("gc", "--yes")
    assert building.is_dir()
    os.utime(building, (time.time() - 7200,) * 2)
    lab.ok("apply", "--yes")
    assert not building.exists()


def test_a_lab_of_datasets_alone_is_not_swept_under_its_feet_in_its_first_apply(
    lab: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.adapters import datasets

    other = Folder(tmp_path / "other", id="other-lab", store=str(lab.store))
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    other.declare("rows", "dataset", path=str(tmp_path / "rows.jsonl"))
    blob, halves = datasets._blob, []

    def meanwhile(vault: Path, path: Path) -> str:
        half = vault / ".half.lab-tmp"
        half.write_text("what this apply is writing")
        assert b"No changes" in lab.process("apply", "--yes").communicate(timeout=120)[0]
        halves.append(half.exists())
        half.unlink(missing_ok=True)
        return blob(vault, path)

    monkeypatch.setattr(datasets, "_blob", meanwhile)
    other.ok("apply", "--yes")
    assert halves == [True]


def test_what_goes_or_cannot_go_while_the_store_is_swept_stops_no_apply(
    lab: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that leads nowhere, and another account's leftover: the apply was done, and says so."""
    from lab.app import gc

    (lab.store / "incoming/gone.lab-tmp").symlink_to("nowhere")
    (lab.store / "incoming/theirs.lab-tmp").write_text("x")
    free = gc._free

    def theirs(path: Path, kind: str) -> None:
        if path.name == "theirs.lab-tmp":
            raise PermissionError(13, "Permission denied", str(path))
        free(path, kind)

    monkeypatch.setattr(gc, "_free", theirs)
    assert "No changes" in lab.ok("apply", "--yes")
    assert [f.name for f in (lab.store / "incoming").iterdir()] == ["theirs.lab-tmp"]


def test_a_view_that_was_forgotten_in_the_ledger_and_in_conf_is_freed_with_its_bytes(lab: Folder) -> None:
    (lab.root / "conf/model/one.yaml").unlink()
    lab.ok("state", "rm", "model.one")
    lab.ok("gc", "--yes")
    assert blobs(lab) == {TWO}
    assert [f.parent.name for f, _ in store.views(lab.store)] == ["two"]


def test_files_of_other_tools_are_never_freed(lab: Folder, home: Path, tmp_path: Path) -> None:
    cache = home / ".lmstudio/models/org/tiny"
    cache.mkdir(parents=True)
    make.gguf(cache / "tiny.gguf")
    lab.declare("tiny", path=str(cache / "tiny.gguf"))
    lab.ok("apply", "--yes")
    assert Path(lab.json("models", "show", "tiny")["files"][0]["lies_in"]) == cache / "tiny.gguf"
    (lab.root / "conf/model/tiny.yaml").unlink()
    lab.ok("apply", "--yes")
    lab.ok("gc", "--yes")
    assert (cache / "tiny.gguf").exists()
