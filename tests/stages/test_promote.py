"""What one stage was applied with is promoted to another as a diff of its file: versions and locks, and nothing else.

Proves S4-2.2.11-7 with tests/stages/test_apart.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.labs import TestLab
from tests.stages.conftest import A, B, sha256, tree


@pytest.fixture
def lab(lab: TestLab) -> TestLab:
    """The lab in git, both stages applied."""
    lab.git("init", "-q")
    lab.write(".gitignore", "state/\nstore/\nout/\nweights/\n")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "one")
    for stage in ("test", "prod"):
        assert lab("apply", "--yes", f"stage={stage}").code == 0
    return lab


def test_promoting_makes_the_smallest_diff_and_production_follows(lab: TestLab) -> None:
    """Two lines of prod.yaml and no other byte; what is written says the same bytes that test was applied with."""
    done = lab("promote", "test", "prod")
    assert done.code == 0, done.err
    assert lab.git("status", "--short") == " M conf/stage/prod.yaml\n"
    diff = [x for x in lab.git("diff", "-U0").splitlines() if x[0] in "+-" and x[:3] not in ("+++", "---")]
    assert diff == ["+model:", "+  m:", f"+    url: file://{lab.root}/weights/b.txt", f"+    sha256: {sha256(B)}"]
    assert "+    url: " in done.out
    assert "# What is relied on.\nvars: {calm: true}\n" in (lab.root / "conf/stage/prod.yaml").read_text()
    assert "no versions, kept as they are: file.note.content" in done.out
    assert "1 to replace" in lab("plan", "stage=prod").out or "1 to update" in lab("plan", "stage=prod").out
    assert lab("apply", "--yes", "stage=prod").code == 0
    assert (lab.root / "store/models/@prod/m/original/b.txt").read_bytes() == B
    assert (lab.root / "out/prod/note.txt").read_text() == "hello"
    assert lab("plan", "stage=test").out.startswith("No changes.")


def test_promoting_again_promotes_nothing(lab: TestLab) -> None:
    """The file is not touched a second time, and `--check` says so."""
    assert lab("promote", "test", "prod", "--check").code == 1
    assert lab.git("status", "--short") == ""
    lab("promote", "test", "prod")
    before = (lab.root / "conf/stage/prod.yaml").stat().st_mtime_ns
    assert lab("promote", "test", "prod", "--check").code == 0
    assert lab("promote", "test", "prod").out.startswith("Nothing to promote.")
    assert (lab.root / "conf/stage/prod.yaml").stat().st_mtime_ns == before
    told = json.loads(lab("promote", "test", "prod", "--json").out)
    assert (told["changed"], told["diff"], told["generation"]) == ([], "", 1)


def test_a_version_that_stands_there_is_changed_in_its_place(lab: TestLab) -> None:
    """Comments and spelling around it stay."""
    body = f"# @package _global_\nmodel:\n  m:\n    url: file://ROOT/weights/a.txt  # one\n    sha256: {sha256(A)}\n"
    lab.write("conf/stage/prod.yaml", body)
    assert lab("promote", "test", "prod").code == 0
    text = (lab.root / "conf/stage/prod.yaml").read_text()
    assert text == body.replace("ROOT", str(lab.root)).replace("a.txt", "b.txt").replace(sha256(A), sha256(B))


def test_what_was_not_applied_is_not_promoted(lab: TestLab) -> None:
    """A version that is only written down was tried by nobody."""
    lab.write("conf/stage/test.yaml", f"# @package _global_\nmodel: {{m: {{sha256: {sha256(b'three')}}}}}\n")
    told = lab("promote", "test", "prod")
    assert told.code == 1
    assert "model.m is not in stage test as declared" in told.err
    assert lab.git("status", "--short") == " M conf/stage/test.yaml\n"


def test_what_is_made_from_it_must_be_well_too(lab: TestLab) -> None:
    """A version under which something that needs it drifted is not promoted; a fault elsewhere is no hindrance."""
    lab.write("conf/file/card.yaml", "path: 'ROOT/out/${lab.stage}/card'\ncontent: of m\nneeds: [model.m]\n")
    lab.write("conf/file/other.yaml", "path: 'ROOT/out/${lab.stage}/other'\ncontent: x\n")
    assert lab("apply", "--yes", "stage=test").code == 0
    (lab.root / "out/test/card").write_text("by hand")
    told = lab("promote", "test", "prod")
    assert told.code == 1
    assert "file.card is not in stage test as declared" in told.err
    assert lab("apply", "--yes", "stage=test").code == 0
    (lab.root / "out/test/other").write_text("by hand")
    assert lab("promote", "test", "prod").code == 0


def test_only_what_is_named_is_promoted(lab: TestLab) -> None:
    """By address or glob; what names nothing is a problem."""
    assert lab("promote", "test", "prod", "file.*").out.startswith("Nothing to promote.")
    assert "no resource matches `modle.*`" in lab("promote", "test", "prod", "modle.*").err
    assert lab("promote", "test", "prod", "model.m").code == 0


def test_stages_that_are_not_there_or_the_same(lab: TestLab) -> None:
    """Each is a problem that says what there is."""
    assert "there is no stage `tets` — did you mean `test`?" in lab("promote", "tets", "prod").err
    assert "there is no stage `prd`" in lab("promote", "test", "prd").err
    assert "test cannot be promoted to itself" in lab("promote", "test", "test").err


def test_pins_hold_a_stage_still(lab: TestLab) -> None:
    """What does not differ is written as well, and then the shared file changes production no more."""
    lab.write("conf/stage/test.yaml", "# @package _global_\n")
    assert lab("apply", "--yes", "stage=test").code == 0
    assert lab("promote", "test", "prod").out.startswith("Nothing to promote.")
    assert lab("promote", "test", "prod", "--pin").code == 0
    assert lab("plan", "stage=prod").out.startswith("No changes.")
    lab.write("conf/model/m.yaml", f"url: file://ROOT/weights/b.txt\nsha256: {sha256(B)}\n")
    assert "1 to" in lab("plan", "stage=test").out
    assert lab("plan", "stage=prod").out.startswith("No changes.")


def test_a_place_of_each_stage_is_no_version(lab: TestLab) -> None:
    """A path that differs by the stage's name stays each one's own."""
    for stage in ("test", "prod"):
        (lab.root / f"weights/{stage}").mkdir()
        (lab.root / f"weights/{stage}/c.txt").write_bytes(b"c")
    lab.write("conf/model/c.yaml", "path: 'ROOT/weights/${lab.stage}/c.txt'\n")
    assert lab("apply", "--yes", "stage=test").code == 0
    assert lab("promote", "test", "prod", "model.c").out.startswith("Nothing to promote.")


def test_locks_are_promoted(lab: TestLab) -> None:
    """The lock that test was applied with becomes production's own; the one they shared is left alone."""
    assert lab("lock").code == 0
    assert lab("lock", "stage=test").code == 0
    assert lab("apply", "--yes", "stage=test").code == 0
    shared = (lab.root / "conf/lock/model/m.yaml").read_bytes()
    done = lab("promote", "test", "prod")
    assert done.code == 0, done.err
    assert "+++ conf/lock/stage/prod/model/m.yaml" in done.out
    locks = tree(lab.root / "conf/lock/stage")
    assert locks["prod/model/m.yaml"] == locks["test/model/m.yaml"]
    assert (lab.root / "conf/lock/model/m.yaml").read_bytes() == shared
    assert lab("promote", "test", "prod").out.startswith("Nothing to promote.")


def test_a_file_that_cannot_say_it_is_left_as_it_was(lab: TestLab, tmp_path: Path) -> None:
    """A profile that is composed after the stage says otherwise: nothing is written, and what overrules it is said."""
    head = (lab.root / "conf/lab.yaml").read_text()
    lab.write("conf/lab.yaml", f"defaults:\n  - _self_\n  - stage: test\n  - profile: p\n{head}")
    lab.write("conf/profile/p.yaml", "# @package _global_\nfile: {note: {mode: '0644'}}\n")
    assert lab("apply", "--yes").code == 0
    lab.write("conf/model/m.yaml", f"url: file://ROOT/weights/a.txt\nsha256: {sha256(A)}\ncontext: 8\n")
    lab.write(
        "conf/profile/p.yaml",
        "# @package _global_\nmodel: {m: {url: 'file://ROOT/weights/${vars.weights}.txt', sha256: '${vars.hash}'}}\n",
    )
    for stage, name, data in (("test", "b", B), ("prod", "a", A)):
        body = f"# @package _global_\nvars: {{weights: {name}, hash: {sha256(data)}}}\n"
        lab.write(f"conf/stage/{stage}.yaml", body)
    assert lab("apply", "--yes", "stage=test").code == 0
    before = tree(lab.root / "conf")
    told = lab("promote", "test", "prod")
    assert told.code == 1
    assert f"model.m.sha256 is still {sha256(A)}" in told.err
    assert tree(lab.root / "conf") == before
