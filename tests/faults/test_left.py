"""What a killed program left half-made, and locked for itself, does not stop the next one.

Proves DC-4.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import conda, experiments
from lab.core.problem import Problems
from tests.labs import REPO, TestLab
from tests.models import make, offers


@pytest.mark.parametrize("verb", ["init", "fetch", "checkout"])
def test_git_killed_with_the_apply_that_began_it(tmp_path: Path, verb: str) -> None:
    """A model kept in git: both are killed while git holds its locks; the next apply completes and leaves nothing."""
    make.safetensors(tmp_path / "work")
    block, _ = offers.repository(tmp_path / "work")
    lab = TestLab.make(tmp_path / "lab", {"model/m": "".join(f"{k}: {v}\n" for k, v in block.items())})
    killed = tmp_path / "bin" / "git"
    killed.parent.mkdir()
    killed.write_text(
        f'#!/bin/sh\nPATH={os.environ["PATH"]}\ngit "$@" || exit\n'
        f'case " $* " in *" {verb} "*) ;; *) exit 0 ;; esac\n'
        f"cd {lab.root}/state/work/model.m/git*/.git && touch index.lock shallow.lock config.lock HEAD.lock\n"
        "kill -9 $PPID\n"
    )
    killed.chmod(0o755)
    lab.git("init", "-q")
    died = lab.run("apply", "--yes", env={"PATH": f"{killed.parent}:{os.environ['PATH']}"})
    assert died.code == -9
    assert list(lab.root.glob("state/work/model.m/git*/.git/index.lock"))
    assert lab("apply", "--yes").code == 0
    assert "No changes" in lab("plan").out
    assert not list(lab.root.glob("state/work/*"))


def test_a_clone_that_was_killed_is_made_again(tmp_path: Path) -> None:
    """A run that goes on in its folder clones its code anew: git clones into no folder that holds something."""
    TestLab.make(tmp_path / "code").git("init", "-q")
    made = TestLab(tmp_path / "code")
    made.git("add", "-A")
    made.git("commit", "-qm", "one")
    left = tmp_path / "run/code.new/.git"
    left.mkdir(parents=True)
    (left / "index.lock").touch()
    code = experiments.clone({"git": str(made.root)}, tmp_path / "run")
    assert (code / "conf/lab.yaml").is_file()
    assert not left.exists()


def test_an_answer_of_rattlers_process_that_a_kill_cut_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half a line is no answer: that it ended is told, with how."""
    cut = tmp_path / "cut"
    cut.write_text("#!/bin/sh\nread asked\nprintf '\\n{\"done\": [1, '\nkill -9 $$\n")
    cut.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(cut))
    with pytest.raises(Problems, match=r"ended without an answer\n +why exit status -9"):
        conda.Child({}).ask({"do": "survey"})


def test_a_supervisor_that_heard_half_of_the_secrets_begins_nothing(tmp_path: Path) -> None:
    """Who started it was killed while it said them: the run never began, and begins again."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from lab.runs.supervise import main; sys.exit(main(sys.argv[1]))",
            tmp_path,
        ],
        input=b'{"TOKEN": "ab',
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert told.returncode == 1
    assert told.stderr == b""
    assert {p.name for p in tmp_path.iterdir()} == {"lease"}
