"""The playbooks are what ansible-lint takes, say what arguments they want, and stop when they take too long."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import ansible
from lab.core.step import Play
from tests.host.support import Stage

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"


@pytest.mark.slow
def test_ansible_lint_finds_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "playbooks"
    shutil.copytree(PLAYBOOKS, copy)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    words = ["ansible-lint", "--offline", "-q", "--nocolor"]
    done = subprocess.run(words, cwd=copy, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    task = copy / "roles/guest/tasks/main.yml"
    task.write_text(task.read_text() + "- shell: ls\n")
    assert subprocess.run(words, cwd=copy, env=env, stdin=subprocess.DEVNULL, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    ("role", "args", "said"),
    [
        ("guest", {"state": "present"}, "missing required arguments: name"),
        ("guest", {"name": "ann", "state": "perhaps"}, "value of state must be one of"),
        ("access", {"rules": "x", "minutes": "soon"}, "minutes"),
        ("access", {"flavour": "sweet"}, "flavour"),
    ],
)
def test_a_role_says_which_argument_is_wrong(role: str, args: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    stage = Stage(f"{role}.x", tmp_path, tmp_path / "state", tmp_path / "store")
    (told,) = ansible.perform([Play(role, args)], [stage], check=True)
    assert isinstance(told, Exception)
    assert said in str(told)


def test_a_run_that_takes_too_long_is_stopped_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ansible, "TIMEOUT", 0.4)
    (tmp_path / "state").mkdir()
    stage = Stage("guest.x", tmp_path, tmp_path / "state", tmp_path / "store")
    (told,) = ansible.perform([Play("guest", {"name": "x", "state": "absent"})], [stage], check=True)
    assert "it took longer than" in str(told)
    assert list(stage.scratch.iterdir()) == []
