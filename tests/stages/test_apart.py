"""Stages of a lab stand apart: state, ledger, views and places are each stage's own, the bytes in the store are shared.

Proves S4-2.2.11-7 with tests/stages/test_promote.py.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from lab.app.lab import Lab
from tests.labs import TestLab
from tests.stages.conftest import A, B, sha256, tree


def test_one_stage_is_applied_and_the_other_is_untouched(lab: TestLab) -> None:
    """`lab apply stage=test` leaves every byte of production as it was: its state, its files and what it plans."""
    root = lab.root
    assert lab.run("apply", "--yes", "stage=prod").code == 0
    before = (tree(root / "state/stage/prod"), tree(root / "out/prod"), tree(root / "store/models/@prod"))
    assert lab.run("apply", "--yes", "stage=test").code == 0
    assert (tree(root / "state/stage/prod"), tree(root / "out/prod"), tree(root / "store/models/@prod")) == before
    assert not (root / "state/ledger.sqlite").exists()
    for stage, said, data in (("prod", "hello", A), ("test", "tried", B)):
        told = "No changes. 2 resources are as declared (generation 1)."
        assert lab("plan", f"stage={stage}").out == f"{told} Stage {stage}.\n"
        assert (root / f"out/{stage}/note.txt").read_text() == said
        (weights,) = (root / f"store/models/@{stage}/m/original").glob("*.txt")
        assert weights.read_bytes() == data


def test_every_verb_takes_the_word(lab: TestLab) -> None:
    """Verbs without overrides too, before the verb and between flags; the header names the stage."""
    lab("apply", "--yes", "stage=test")
    assert "stage test" in lab("status", "stage=test").out.splitlines()[0]
    assert lab("state", "list", "stage=test").out == "file.note\nmodel.m\n"
    assert lab("state", "stage=prod", "list").out.startswith("Nothing is recorded")
    assert lab("stage=test", "history").out.splitlines()[0].endswith("2 create")
    assert lab("history", "stage=prod").out.startswith("Nothing was applied yet")
    assert "stage test" in lab("stage=test").out
    assert json.loads(lab("plan", "--json", "stage=test").out)["stage"] == "test"


def test_what_follows_an_option_is_its_value(lab: TestLab) -> None:
    """`--where stage=…` asks about a parameter of that name."""
    assert lab("runs", "--where", "stage=tset").code == 0
    assert "there is no stage `tset`" in lab("runs", "stage=tset").err


def test_a_lab_without_stages_knows_no_such_word(tmp_path: Path) -> None:
    """It is a parameter's name there, or a mistake, as it was."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/a\ncontent: x\n"})
    assert "invalid int value: 'stage=test'" in lab("history", "stage=test").err
    assert "there is no stage `test`" in lab("plan", "stage=test").err
    assert lab("apply", "--yes").code == 0
    assert (tmp_path / "state/ledger.sqlite").exists()


def test_the_default_is_in_lab_yaml(lab: TestLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's defaults list names the stage that is meant where nobody says one; an override wins over it."""
    head = (lab.root / "conf/lab.yaml").read_text()
    lab.write("conf/lab.yaml", f"defaults:\n  - _self_\n  - stage: ${{oc.env:MY_STAGE,test}}\n{head}")
    assert lab("apply", "--yes").code == 0
    assert os.listdir(lab.root / "state/stage") == ["test"]
    monkeypatch.setenv("MY_STAGE", "prod")
    assert "stage prod" in lab("plan").out
    assert "stage test" in lab("status", "stage=test").out
    assert "stage" not in lab("plan", "~stage").out.splitlines()[0]
    monkeypatch.setenv("MY_STAGE", "prd")
    assert "there is no stage `prd` — did you mean `prod`?" in lab("history").err


def test_an_unknown_stage_is_a_problem_for_every_verb(lab: TestLab) -> None:
    """Also where nothing is composed: an empty history would say that nothing was applied."""
    for words in (("plan",), ("apply", "--yes"), ("history",), ("state", "list"), ("gc",), ("validate",)):
        told = lab(*words, "stage=tset")
        assert told.code == 1, words
        assert "there is no stage `tset` — did you mean `test`?" in told.out + told.err
    assert not (lab.root / "state").exists()


def test_a_stage_that_is_gone_says_where_its_state_lies(lab: TestLab) -> None:
    """Nothing is taken down or forgotten because a file went."""
    lab("apply", "--yes", "stage=test")
    text = (lab.root / "conf/stage/test.yaml").read_text()
    (lab.root / "conf/stage/test.yaml").unlink()
    told = lab("plan", "stage=test").err
    assert "state/stage/test" in told
    assert "bring conf/stage/test.yaml back" in told
    lab.write("conf/stage/test.yaml", text)
    assert lab("destroy", "--all", "--yes", "stage=test").code == 0
    assert tree(lab.root / "out") == {}


def test_a_stage_chosen_by_a_profile_is_refused(lab: TestLab) -> None:
    """The state hangs on the answer, so it must be told without composing."""
    lab.write("conf/profile/p.yaml", "# @package _global_\ndefaults:\n  - /stage: test\n")
    told = lab("plan", "profile=p")
    assert told.code == 1
    assert "the stage `test` is chosen where it is not looked for" in told.err
    assert "No changes" not in told.out


def test_stages_share_bytes_and_gc_of_one_keeps_the_others(lab: TestLab) -> None:
    """Equal bytes are one blob; what test no longer wants is freed only when production does not hold it either."""
    lab.write("conf/stage/prod.yaml", (lab.root / "conf/stage/test.yaml").read_text())
    for stage in ("test", "prod"):
        assert lab("apply", "--yes", f"stage={stage}").code == 0
    blob = lab.root / f"store/blobs/sha256/{sha256(B)[:2]}/{sha256(B)}"
    assert os.listdir(lab.root / "store/blobs/sha256") == [sha256(B)[:2]]
    # Nothing but production's record and view names the bytes from here on.
    shutil.rmtree(lab.root / "conf/model")
    for stage in ("test", "prod"):
        lab.write(f"conf/stage/{stage}.yaml", "# @package _global_\n")
    assert lab("apply", "--yes", "--allow-destroy", "stage=test").code == 0
    (lab.root / "store/models/@prod").rename(lab.root / "aside")
    for words in (("gc", "--yes", "stage=test"), ("gc", "--yes")):
        assert lab(*words).code == 0
        assert blob.exists(), words
    (lab.root / "aside").rename(lab.root / "store/models/@prod")
    assert lab("apply", "--yes", "--allow-destroy", "stage=prod").code == 0
    assert lab("gc", "--yes", "stage=test").code == 0
    assert not blob.exists()


def test_a_path_two_stages_want_is_a_problem_before_anything_is_done(lab: TestLab) -> None:
    """The plan of the second says who holds it, and how to tell them apart."""
    lab.write("conf/file/note.yaml", "path: ROOT/out/note.txt\ncontent: hello\n")
    assert lab("apply", "--yes", "stage=prod").code == 0
    told = lab("apply", "--yes", "stage=test")
    assert told.code == 1
    assert f"file.note would take the path {lab.root}/out/note.txt, which file.note of stage prod holds" in told.err
    assert "import" not in told.err
    assert (lab.root / "out/note.txt").read_text() == "hello"
    assert lab("plan", "stage=prod").code == 0
    lab.write("conf/stage/test.yaml", "# @package _global_\nfile: {note: {enabled: false}}\n")
    assert lab("apply", "--yes", "stage=test").code == 0


def test_two_stages_are_applied_at_the_same_time(lab: TestLab) -> None:
    """Each has a lock of its own; neither waits for the other or is refused."""
    done = [lab.child("apply", "--yes", f"stage={s}") for s in ("test", "prod")]
    for process in done:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    for stage in ("test", "prod"):
        assert lab("plan", f"stage={stage}").out.startswith("No changes. 2 resources")


def test_a_saved_plan_is_for_its_stage(lab: TestLab) -> None:
    """It is applied to the stage it was made for, and to no other."""
    file = str(lab.root / "p.json")
    assert lab("plan", "stage=test", "--out", file).code == 0
    assert "is a plan for stage test, not for prod" in lab("apply", file, "stage=prod").err
    assert lab("apply", file).code == 0
    assert os.listdir(lab.root / "state/stage") == ["test"]


def test_rollback_stays_in_its_stage(lab: TestLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the stage was the default when the generation was made, and another is the default now."""
    head = (lab.root / "conf/lab.yaml").read_text()
    lab.write("conf/lab.yaml", f"defaults:\n  - _self_\n  - stage: ${{oc.env:MY_STAGE,test}}\n{head}")
    lab.git("init", "-q")
    lab.write(".gitignore", "state/\nstore/\nout/\n__pycache__/\n")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "one")
    assert lab("apply", "--yes").code == 0
    lab.write("conf/stage/test.yaml", "# @package _global_\nfile: {note: {content: later}}\n")
    assert lab("apply", "--yes").code == 0
    assert (lab.root / "out/test/note.txt").read_text() == "later"
    monkeypatch.setenv("MY_STAGE", "prod")
    assert lab("rollback", "1", "--yes", "stage=test").code == 0
    assert (lab.root / "out/test/note.txt").read_text() == "tried"
    assert os.listdir(lab.root / "state/stage") == ["test"]


def test_each_stage_has_locks_of_its_own(lab: TestLab) -> None:
    """What one resolves changes nothing for another; what all share is still read where a stage has none."""
    assert lab("lock").code == 0
    shared = tree(lab.root / "conf/lock")
    assert lab("lock", "stage=test").code == 0
    assert {n: h for n, h in tree(lab.root / "conf/lock").items() if "stage/" not in n} == shared
    opened = Lab.find(lab.root, ("stage=test",))
    own = opened.context("model.m").lock
    assert own is not None
    assert sha256(B) in json.dumps(own)
    prod = Lab.find(lab.root, ("stage=prod",)).context("model.m").lock
    assert prod is not None
    assert sha256(A) in json.dumps(prod)


def test_a_command_that_runs_by_itself_says_its_stage(lab: TestLab) -> None:
    """Names of timers and tags of snapshots tell stages apart, and the command that is run names the stage."""
    from lab.core.guest_programs import systemd
    from lab.core.stages import short

    heads = [Lab.find(lab.root, words).head["lab"] for words in ((), ("stage=test",), ("stage=prod",))]
    assert [short(h) for h in heads] == ["00000000", "00000000-test", "00000000-prod"]
    assert "guest serve stage=test\n" in systemd("/lab", "test")


def test_stages_of_a_machine_stand_in_one_queue(tmp_path: Path) -> None:
    """The memory is one: what a run of production holds, a run of test waits for."""
    from lab.adapters import admission
    from lab.core.problem import Problems

    states = [tmp_path / "state/stage" / s for s in ("prod", "test")]
    with admission.admit(states[0], 6, 10, "run-1", True, free=lambda: 10):
        assert [e.name for e in admission.status(states[1])] == ["run-1"]
        with (
            pytest.raises(Problems, match="does not fit now"),
            admission.admit(states[1], 6, 10, "run-2", False, free=lambda: 10),
        ):
            pass
    assert admission.status(states[1]) == []
