"""`lab models` lists, filters, checks, adds, moves and exports what the lab holds.

(S0-US-004-1, S0-US-004-2, S0-US-004-3, S0-US-004-4, S0-7.3-4, S0-8.2-1, S1-D4.3-1)
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.models import make
from tests.models.conflab import Folder

FIELDS = ["name", "path", "size_gb", "file_hash", "source_url", "type", "description", "date_added", "added_by"]


@pytest.fixture
def lab(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "lab", stores={"bulk": {"path": str(tmp_path / "bulk"), "tier": "slow"}})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    make.safetensors(folder / "st")
    folder.joinpath("g").mkdir()
    make.gguf(folder / "g/tiny.gguf")
    return folder


def names(found: list[dict[str, str]]) -> list[str]:
    return [f["name"] for f in found]


def test_models_are_listed_and_filtered_by_what_their_headers_say(lab: Folder, files: Path) -> None:
    lab.declare("st", path=str(files / "st"), license="mit")
    lab.declare("tiny", path=str(files / "g/tiny.gguf"))
    lab.declare("later", url="https://192.0.2.1/x.gguf", sha256="0" * 64)
    lab.ok("apply", "--yes", "--only", "model.st", "--only", "model.tiny")
    assert names(lab.json("models", "--where", "params>1e3 and format==gguf")) == ["tiny"]
    assert names(lab.json("models", "list", "--where", "params>1e6 and format==gguf")) == []
    assert names(lab.json("models", "--params", "<13B", "--format", "safetensors")) == ["st"]
    assert names(lab.json("models", "--where", "state=='not there yet' or (license~mi* and not format==gguf)")) == [
        "later",
        "st",
    ]
    assert names(lab.json("models", "--where", "bytes<10kB and context>=2K")) == ["tiny"]
    text = lab.ok("models")
    assert "+  later" in text
    assert "Q8_0" in text
    page = lab.ok("models", "show", "tiny")
    assert "Q8_0 ×1" in page
    assert lab.json("models", "show", "st")["facts"]["shape"]["width"] == 64


@pytest.mark.parametrize(
    ("filter_", "says"),
    [
        ("parms>1", "params"), ("params>", "lacks a value"), ("(params>1", "not closed"), ("params>x", "no number"),
        ("$", "$"), ("params>1 format", "one too many"),
    ],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_a_problem(lab: Folder, filter_: str, says: str) -> None:
    code, text = lab.run("models", "--where", filter_)
    assert code == 1
    assert says in text


def test_the_same_file_under_two_names_costs_once_and_sharing_halves_a_set(lab: Folder, files: Path) -> None:
    (files / "other").mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (files / "other" / name).write_bytes((files / "st" / name).read_bytes())
    lab.declare("one", path=str(files / "st"))
    lab.declare("two", path=str(files / "other"))
    lab.declare("three", path=str(files / "st"), family="copies")
    lab.ok("apply", "--yes")
    stats = lab.json("models", "stats")
    print(f"physical/logical: {stats['ratio']}")
    assert stats["physical"] <= stats["logical"] * 0.67
    done = subprocess.run(
        ["du", "-s", "--block-size=1", str(lab.store / "blobs")], capture_output=True, text=True, check=True
    )
    assert abs(int(done.stdout.split()[0]) - stats["physical"]) < 200_000  # du counts folders too
    lab.root.joinpath("conf/model/one.yaml").unlink()
    lab.ok("apply", "--yes")
    two = lab.json("models", "show", "two")
    assert Path(two["view"], "model.safetensors").read_bytes() == (files / "st/model.safetensors").read_bytes()


def test_after_apply_the_store_is_as_laid_out_and_a_stray_file_is_told(lab: Folder, files: Path) -> None:
    lab.declare("st", path=str(files / "st"), family="tiny")
    lab.ok("apply", "--yes")
    view = lab.store / "models/tiny/st/original"
    assert sorted(p.name for p in lab.store.iterdir() if not p.name.startswith(".ledger")) == [
        ".lab.json", "blobs", "incoming", "models",
    ]  # fmt: skip
    assert "as laid out" in lab.ok("models", "check")
    (lab.store / "notes.txt").write_text("x")
    (view / "extra.bin").write_text("x")
    (lab.store / "blobs/sha256/zz").mkdir()
    (lab.store / "blobs/sha256/zz/junk").write_text("x")
    (view / "config.json").unlink()
    (view / "config.json").symlink_to("/etc/hostname")
    code, text = lab.run("models", "check")
    assert code == 1
    for name in ("notes.txt", "extra.bin", "zz/junk", "config.json"):
        assert name in text
    lab.ok("apply", "--yes")
    assert not (view / "extra.bin").exists()
    assert [f.read_text() for f in lab.store.glob("stray/*/extra.bin")] == ["x"]


def test_adding_a_file_declares_it_records_nine_fields_and_leaves_a_clean_plan(lab: Folder, files: Path) -> None:
    file = files / "g/tiny.gguf"
    record = lab.json(
        "models", "add", "--path", str(file), "--name", "mine", "--url", "https://example.org/tiny.gguf",
        "--type", "gguf", "--desc", "a tiny one",
    )  # fmt: skip
    assert list(record) == FIELDS
    digest = subprocess.run(["sha256sum", str(file)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert record["file_hash"] == digest
    assert record["size_gb"] == pytest.approx(file.stat().st_size / 1e9, abs=1e-6)
    assert json.loads((lab.root / "state/models/mine.json").read_text()) == record
    assert yaml.safe_load((lab.root / "conf/model/mine.yaml").read_text())["description"] == "a tiny one"
    assert "No changes" in lab.ok("plan")
    code, text = lab.run("models", "add", "--path", str(file), "--name", "mine")
    assert (code, "declared already" in text) == (1, True)
    code, _ = lab.run("models", "add", "--path", str(file), "--name", "wrong", "--type", "mlx")
    assert code == 1
    assert not (lab.root / "conf/model/wrong.yaml").exists()


def test_a_folder_is_added_too(lab: Folder, files: Path) -> None:
    record = lab.json("models", "add", "--path", str(files / "st"))
    assert record["name"] == "st"
    sums = "".join(
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in sorted((files / "st").iterdir())
    )
    assert record["file_hash"] == hashlib.sha256(sums.encode()).hexdigest()


def test_a_wrong_format_is_refused_before_and_during_apply(lab: Folder, files: Path) -> None:
    lab.declare("st", path=str(files / "st"), format="gguf")
    code, text = lab.run("apply", "--yes")
    assert code == 1
    assert not list(lab.store.glob("models/*"))
    lab.declare("st", path=str(files / "g/tiny.gguf"), format="mlx")
    code, text = lab.run("plan")
    assert code == 1
    assert "it is gguf, not mlx" in text


def test_moving_a_model_edits_its_file_and_apply_moves_the_bytes(lab: Folder, files: Path, tmp_path: Path) -> None:
    (files / "g/tiny.gguf").rename(files / "t.gguf")
    file = lab.declare("tiny", path=str(files / "t.gguf"))
    file.write_text("# mine\n" + file.read_text())
    lab.ok("apply", "--yes")
    assert "lab apply" in lab.ok("models", "move", "tiny", "slow")
    assert file.read_text().startswith("# mine\n")
    lab.ok("apply", "--yes")
    assert (tmp_path / "bulk/models/tiny/original/t.gguf").exists()
    assert not (lab.store / "models/tiny").exists()
    assert "No changes" in lab.ok("plan")
    code, text = lab.run("models", "move", "tiny", "blk")
    assert (code, "bulk" in text) == (1, True)


def test_a_volume_that_is_away_is_told_and_nothing_is_planned_for_it(lab: Folder, files: Path, tmp_path: Path) -> None:
    lab.declare("tiny", path=str(files / "g/tiny.gguf"), store="bulk")
    lab.declare("st", path=str(files / "st"))
    lab.ok("apply", "--yes")
    (tmp_path / "bulk").rename(tmp_path / "unplugged")
    (tmp_path / "bulk").mkdir()
    plan = json.loads(lab.run("plan", "--json")[1])
    told = {c["address"]: (c["action"], c.get("unknown", "")) for c in plan["changes"]}
    assert "not mounted" in told["model.tiny"][1]
    assert told["model.tiny"][0] == "none"
    assert plan["summary"].get("destroy", 0) == 0
    (tmp_path / "bulk").rmdir()
    (tmp_path / "unplugged").rename(tmp_path / "bulk")
    assert "No changes" in lab.ok("plan")


@pytest.mark.parametrize("end", ["tar.gz", "tar.zst"])
def test_an_export_holds_every_file_and_its_checksums_and_is_the_same_twice(
    lab: Folder, files: Path, tmp_path: Path, end: str
) -> None:
    import shutil

    if end == "tar.zst" and not shutil.which("zstd"):
        pytest.skip("zstd is not installed here")
    lab.declare("st", path=str(files / "st"))
    lab.ok("apply", "--yes")
    one, two = tmp_path / f"one.{end}", tmp_path / f"two.{end}"
    lab.ok("models", "export", "st", str(one))
    lab.ok("models", "export", "st", str(two))
    assert one.read_bytes() == two.read_bytes()
    if end == "tar.zst":
        subprocess.run(["zstd", "-dq", str(one), "-o", str(tmp_path / "one.tar")], check=True)
        one = tmp_path / "one.tar"
    with tarfile.open(one) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out/st", check=True)
    blob = Path(lab.json("models", "show", "st")["files"][0]["lies_in"])
    blob.chmod(0o644)
    blob.write_bytes(b"spoiled" + blob.read_bytes()[7:])
    code, text = lab.run("models", "export", "st", str(tmp_path / f"three.{end}"))
    assert (code, "damaged" in text) == (1, True)
    assert not list(tmp_path.glob("*three*"))
