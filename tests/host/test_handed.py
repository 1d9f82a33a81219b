"""What the broker reads with its owner's rights is what the owner declared, whatever a guest asks for."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from lab.app import guest_run
from lab.app.lab import Lab
from lab.core.problem import Problems
from tests.labs import TestLab


@pytest.mark.parametrize(
    "declared",
    ["command: 'sh ${.params.script}'", "command: 'sh {script}'\ncode: ['${experiment.look.params.script}']"],
)
def test_a_guest_chooses_no_file_of_the_owners(tmp_path: Path, declared: str) -> None:
    """A parameter that the declaration refers to may name a file of the repository, a private one too."""
    made = TestLab.make(
        tmp_path / "lab",
        {"experiment/look": f"{declared}\nparams: {{script: look.sh, n: 1}}\nwhen: manual\n"},
    )
    made.write("look.sh", "id\n")
    made.write("private.txt", "mine\n")
    rights = {"may": ["experiment.look"]}

    def asked(*words: str) -> set[str]:
        return set(guest_run.handed(*guest_run.composed(Lab(made.root), rights, ["look", *words]), me, rights)["files"])

    me = getpass.getuser()
    assert asked("n=2") == {"look.sh"}
    assert asked("script=look.sh") == {"look.sh"}
    with pytest.raises(Problems, match=r"script=private.txt"):
        asked("script=private.txt")
