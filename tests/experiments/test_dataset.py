"""A dataset is its content: versions, checks, splits, rights and lineage follow from it.

Proves S2-3.3-1, S2-3.3-2, S4-2.2.7-1, S4-2.2.7-2, S4-2.2.7-5, S4-2.2.7-6, S4-2.2.7-7, S4-2.2.8-6, S2-3.3-3, S2-3.3-4
S4-2.2.7-3, S3-3.1-2, S3-3.1-3, S3-3.3-1 and S4-4.1-3.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.adapters import acl, rows
from lab.core.problem import Problems
from tests.experiments.conftest import Bench
from tests.labs import TestLab

CSV = "id,text,score\n1,one,0.5\n2,two,0.9\n3,three,0.1\n4,four,\n"


@pytest.fixture
def lab(bench: Bench) -> Bench:
    """A lab with a dataset of one CSV file."""
    bench.write("data/d.csv", CSV)
    assert bench("dataset", "add", str(bench.root / "data/d.csv"))[0] == 0
    return bench


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may enter; pytest's own is closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def view(bench: Bench, name: str = "d") -> Path:
    """The dataset's folder."""
    return Path(bench.lab.store) / "datasets" / name / "data"


def test_a_damaged_version_is_told(tmp_path: Path) -> None:
    """Every verb names the file; without it the content is a version again."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    lab = TestLab.make(tmp_path / "lab", {"dataset/rows": f"path: {tmp_path}/rows.jsonl\n"})
    assert lab("apply", "--yes").code == 0
    (one,) = (lab.root / "store/datasets/rows/versions").iterdir()
    for said in (b"", b"\xe2", b"[]", b"{}", b'{"files": 1}'):
        one.write_bytes(said)
        ran = lab("dataset", "list")
        assert ran.code == 1
        assert f"a version of dataset rows is damaged\n      why {one}" in ran.err
    one.unlink()
    (lab.root / "store/datasets/rows/data/rows.jsonl").unlink()
    assert lab("apply", "--yes").code == 0
    assert lab("dataset", "list").code == 0


def test_versions_follow_content(lab: Bench) -> None:
    """Add, change one file: version 2 with the file's name; version 1 comes back byte for byte."""
    assert lab("apply", "--yes")[0] == 0
    assert (view(lab) / "d.csv").read_text() == CSV
    assert "No changes" in lab("plan")[1]
    lab.write("data/d.csv", CSV + "5,five,1\n")
    assert "~ dataset.d" in lab("plan")[1]
    assert lab("apply", "--yes")[0] == 0
    assert lab("dataset", "diff", "d", "1", "2")[1].strip() == "~ d.csv"
    assert lab("dataset", "tag", "d@1", "first")[0] == 0
    out = lab.root / "old"
    assert lab("dataset", "checkout", "d@first", "--to", str(out))[0] == 0
    assert (out / "d.csv").read_text() == CSV
    lab.write("data/d.csv", CSV)
    assert lab("apply", "--yes")[0] == 0
    assert "version 3" not in lab("dataset", "history", "d")[1], "the same content is the same version"


def test_tampering_is_drift_and_mended_and_destroy_leaves_the_versions(lab: Bench) -> None:
    """The round trip on the real machine."""
    lab("apply", "--yes")
    link = view(lab) / "d.csv"
    link.unlink()
    link.write_text("mine")
    assert "dataset.d" in lab("plan")[1]
    assert lab("apply", "--yes")[0] == 0
    assert link.read_text() == CSV
    (lab.root / "conf/dataset/d.yaml").unlink()
    assert lab("apply", "--yes", "--allow-destroy")[0] == 0
    assert not view(lab).exists()
    assert (view(lab).parent / "versions" / "1.json").exists()


def test_checks_refuse_a_version_unless_waived(lab: Bench) -> None:
    """Planted nulls, duplicates, wrong types, ranges and outliers are each found; `waive` takes it and records them."""
    text = "id,text,score\n" + "".join(f"{i},t{i},{i % 3}\n" for i in range(1, 40)) + "1,t1,1\n41,,900\n"
    lab.write("data/d.csv", text)
    lab.write(
        "conf/dataset/d.yaml",
        """\
        path: data/d.csv
        checks: {rows: [1, 20], columns: {id: string}, not_null: [text], unique: [id], ranges: {score: [0, 5]},
                 duplicates: 0, outliers: 4, values: {text: [t1]}}
        """,
    )
    code, told = lab("apply", "--yes")
    assert code == 1
    assert "it has 41 rows, not 1 to 20" in told
    assert "id is int, not string" in told
    assert "text is missing in 1 of 41 rows" in told
    assert not view(lab).exists()
    path = lab.root / "conf/dataset/d.yaml"
    path.write_text(path.read_text() + "waive: true\n")
    assert lab("apply", "--yes")[0] == 0
    known = json.loads((view(lab).parent / "versions" / "1.json").read_text())["broken"]
    for word in ("duplicates", "repeated", "0 to 900", "outlier", "none of its values"):
        assert any(word in one for one in known), word


def test_splits_keep_equal_rows_together_and_leaks_are_found(lab: Bench) -> None:
    """The same rows fall the same way whatever their order; a row planted in two given splits fails the gate."""
    body = [f"{i},t{i},{i}\n" for i in range(200)]
    conf = "path: data/d.csv\nsplits: {train: 0.8, test: 0.2}\n"
    lab.write("data/d.csv", "id,text,score\n" + "".join(body))
    lab.write("conf/dataset/d.yaml", conf)
    assert lab("apply", "--yes")[0] == 0
    first = {n: set(_ids(view(lab) / f"{n}.csv")) for n in ("train", "test")}
    assert not first["train"] & first["test"]
    assert len(first["train"] | first["test"]) == 200
    assert 20 < len(first["test"]) < 65
    lab.write("data/d.csv", "id,text,score\n" + "".join(reversed(body)))
    assert lab("apply", "--yes")[0] == 0
    assert {n: set(_ids(view(lab) / f"{n}.csv")) for n in ("train", "test")} == first
    lab.write("data/leak/train.jsonl", '{"a": 1}\n{"a": 2}\n')
    lab.write("data/leak/test.jsonl", '{"a": 2}\n{"a": 3}\n')
    lab.write("conf/dataset/leak.yaml", "path: data/leak\n")
    code, told = lab("apply", "--yes")
    assert code == 1
    assert "1 rows lie in both test and train" in told


def test_transforms_rerun_from_the_first_changed_step(lab: Bench) -> None:
    """Each step is kept by the hash of what went into it: changing the last runs only the last."""
    lab.write("clean.py", "def upper(row): return {**row, 'text': row['text'].upper()}\n")
    conf = "path: data/d.csv\ntransform:\n- filter: score > 0.2\n- map: clean:upper\n- select: [%s]\n"
    lab.write("conf/dataset/d.yaml", conf % "id, text")
    assert "transform 3 of 3" in lab("apply", "--yes")[1]
    assert (view(lab) / "data.csv").read_text() == "id,text\n1,ONE\n2,TWO\n"
    lab.write("conf/dataset/d.yaml", conf % "text")
    told = lab("apply", "--yes")[1]
    assert "transform 3 of 3" in told
    assert "transform 1 of 3" not in told
    assert (view(lab) / "data.csv").read_text() == "text\nONE\nTWO\n"


def test_a_role_reads_only_what_its_policy_gives(lab: Bench) -> None:
    """Columns left out, rows filtered, values masked but still joinable; a role that is not named reads nothing."""
    lab.write(
        "conf/dataset/d.yaml", 'path: data/d.csv\npolicy: {guest: {deny: [id], mask: [text], where: "score >= 0.5"}}\n'
    )
    lab("apply", "--yes")
    got = [json.loads(line) for line in lab("dataset", "read", "d", "--as", "guest")[1].splitlines()]
    assert [sorted(row) for row in got] == [["score", "text"]] * 2
    assert all(row["text"].startswith("masked-") for row in got)
    assert lab("dataset", "read", "d", "--as", "stranger")[0] == 1


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs setfacl and another user")
def test_access_is_kept_by_the_file_system(lab: Bench, open_folder: Path) -> None:
    """A reader reads, everybody else is refused; changing the rights shows in the plan."""
    conf = lab.root / "conf/lab.yaml"
    conf.write_text(re.sub("store: .*}", f"store: {open_folder}}}", conf.read_text()))
    lab.write("conf/dataset/d.yaml", "path: data/d.csv\naccess: {read: [nobody]}\n")
    assert lab("apply", "--yes")[0] == 0, lab("apply", "--yes")[1]
    file = str(view(lab) / "d.csv")

    def reads(user: str) -> bool:
        return (
            subprocess.run(
                ["setpriv", f"--reuid={user}", "--clear-groups", "cat", file], capture_output=True
            ).returncode
            == 0
        )

    assert reads("nobody")
    assert not reads("daemon")
    lab.write("conf/dataset/d.yaml", "path: data/d.csv\naccess: {read: [daemon]}\n")
    assert "access.read" in lab("plan")[1]
    assert lab("apply", "--yes")[0] == 0
    assert reads("daemon")
    assert not reads("nobody")


def test_access_lines_for_macos_are_as_chmod_takes_them(tmp_path: Path) -> None:
    """What only macOS runs is at least spelled as its manual says."""
    lines = acl.commands(tmp_path, {"read": ("ann",), "write": ("@team",)}, darwin=True)
    assert lines[0] == ["chmod", "-R", "-N", str(tmp_path)]
    assert lines[1][:4] == ["chmod", "-R", "+a", lines[1][3]]
    assert lines[1][3].startswith("user:ann allow read,")
    assert lines[2][3].startswith("group:team allow read,write,")


def test_five_formats_are_known_by_their_content(tmp_path: Path) -> None:
    """CSV, JSON lines, Parquet, text and images register with the right format, columns and rows."""
    listed = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    for name, format in (("t.csv", "csv"), ("t.jsonl", "jsonl"), ("t.parquet", "parquet")):
        rows.write(tmp_path / name, listed, format)
        assert rows.sniff({name: tmp_path / name}) == format
        assert list(rows.read(tmp_path / name, format)) == listed
    (tmp_path / "t.txt").write_text("one\ntwo\n")
    assert rows.sniff({"t.txt": tmp_path / "t.txt"}) == "text"
    png = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000030000000208000000")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "i.png").write_bytes(png)
    (row,) = rows.read(tmp_path / "cat" / "i.png", "images", "cat/i.png")
    assert (row["label"], row["width"], row["height"]) == ("cat", 3, 2)
    (tmp_path / "bad.csv").write_text("a,b\n1\n")
    with pytest.raises(Problems, match=r"bad.csv:2 has 1 cells, not 2"):
        list(rows.read(tmp_path / "bad.csv", "csv"))


def test_merge_is_a_union_and_conflicts_are_told(lab: Bench) -> None:
    """Two versions that each add a file merge into both; a file both changed is a conflict."""
    lab.write("conf/dataset/d.yaml", "path: data/many\nformat: text\n")
    for files in (("base",), ("base", "left"), ("base", "right")):
        for old in (lab.root / "data/many").glob("*"):
            old.unlink()
        for name in files:
            lab.write(f"data/many/{name}.txt", f"{name}\n")
        assert lab("apply", "--yes")[0] == 0
    assert "Version 4" in lab("dataset", "merge", "d", "2", "3")[1]
    assert lab("dataset", "diff", "d", "1", "4")[1].split() == ["+", "left.txt", "+", "right.txt"]
    for name in ("base", "left", "right"):
        lab.write(f"data/many/{name}.txt", f"{name} changed\n")
    lab("apply", "--yes")
    lab.write("data/many/left.txt", "otherwise\n")
    lab("apply", "--yes")
    code, told = lab("dataset", "merge", "d", "5", "6")
    assert code == 1
    assert "both changed left.txt" in told


def test_lineage_goes_from_raw_data_to_what_came_of_it(lab: Bench) -> None:
    """An experiment that uses the dataset, and the dataset made from its output, are on one graph."""
    lab.write("use.py", "def main(datasets, outputs): outputs['out'].write_text('{\"a\": 1}\\n')\n")
    lab.write("conf/experiment/use.yaml", "call: use:main\ndatasets: {d: d}\noutputs: {out: out.jsonl}\n")
    lab.write("conf/dataset/derived.yaml", "from: use\n")
    assert lab("apply", "--yes")[0] == 0, lab("apply", "--yes")[1]
    assert (view(lab, "derived") / "out.jsonl").read_text() == '{"a": 1}\n'
    graph = json.loads(lab("dataset", "lineage", "dataset.d")[1])
    assert graph["edges"] == [["dataset.d", "experiment.use"], ["experiment.use", "dataset.derived"]]
    assert lab("dataset", "lineage", "dataset.d", "--mermaid")[1].startswith("graph LR")
    lab.write("data/d.csv", CSV + "9,nine,1\n")
    told = lab("plan")[1]
    assert all(f"{a}" in told for a in ("dataset.d ", "experiment.use", "dataset.derived"))


def test_lineage_tells_source_transforms_and_everything_built_on_it(lab: Bench) -> None:
    """Data, training, model, evaluation: the right edges, upstream and down; the chain of steps and the columns' notes
    stand beside the dataset; a circle is refused."""
    lab.write("conf/profile/all.yaml", '# @package _global_\nresources: {"*": "*"}\n')
    steps = "transform: [{filter: score > 0}, {drop: [id]}]"
    lab.write("conf/dataset/d.yaml", f"path: data/d.csv\n{steps}\nnotes: {{text: by hand}}\n")
    lab.write("conf/experiment/train.yaml", "command: 'true'\ndatasets: {d: d}\noutputs: {model: m}\n")
    lab.write("conf/model/made.yaml", "from: train\noutput: model\n")
    lab.write("conf/experiment/judge.yaml", "command: 'true'\nmodels: {m: made}\n")
    edges = [["dataset.d", "experiment.train"], ["experiment.train", "model.made"], ["model.made", "experiment.judge"]]
    for name in ("dataset.d", "experiment.judge"):
        graph = json.loads(lab("dataset", "lineage", name)[1])
        assert sorted(graph["edges"]) == sorted(edges)
        assert graph["datasets"]["dataset.d"] == {
            "source": {"path": "data/d.csv"},
            "transform": [{"filter": "score > 0"}, {"drop": ["id"]}],
            "columns": {"text": "by hand"},
        }
    assert "dataset.d<br>path data/d.csv<br>filter, drop" in lab("dataset", "lineage", "dataset.d", "--mermaid")[1]
    lab.write("conf/dataset/d.yaml", "from: judge\noutput: x\n")
    code, told = lab("validate")
    assert code == 1
    assert "circle" in told or "cycle" in told, told


def test_equal_bytes_are_stored_once_and_a_damaged_one_is_found(lab: Bench) -> None:
    """The same content again is no new version; one changed file of many costs its own bytes; versions differ by that
    file; a flipped byte in the store is named by `lab verify`."""
    for n in range(20):
        lab.write(f"data/many/{n}.txt", f"{n}" * 50_000)
    lab.write("conf/dataset/many.yaml", "path: data/many\n")
    assert lab("apply", "--yes")[0] == 0
    vault = view(lab, "many").parent
    before = _bytes(vault / "blobs")
    assert lab("apply", "--yes")[0] == 0
    lab.write("data/many/3.txt", "x" * 70_000)
    assert lab("apply", "--yes")[0] == 0
    assert _bytes(vault / "blobs") - before == 70_000
    assert lab("dataset", "diff", "many", "1", "2")[1].strip() == "~ 3.txt"
    assert lab("dataset", "checkout", "many@1", "--to", str(lab.root / "old"))[0] == 0
    assert (lab.root / "old/3.txt").read_text() == "3" * 50_000
    assert len(list((vault / "versions").glob("*.json"))) == 2
    assert lab("verify")[0] == 0
    blob = (view(lab, "many") / "5.txt").resolve()
    blob.chmod(0o644)
    blob.write_text("y" + blob.read_text()[1:])
    code, told = lab("verify")
    assert code == 1
    assert "5.txt" in told


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _ids(path: Path) -> list[str]:
    with open(path, newline="") as f:
        return [row["id"] for row in csv.DictReader(f)]
