"""`lab validate` prints every problem and exits with 1, or says that there is none; the kinds' pages follow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lab.declare import docs

from .conftest import GOOD, LAB, Make

ROOT = Path(__file__).parents[2]


def lab(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user runs it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-m", "lab", "-C", str(root), *words], capture_output=True, text=True, env=env, check=False
    )


def test_a_sound_lab(make: Make) -> None:
    """Exit code 0, how many resources there are, and the next command."""
    said = lab(make({"file/a.yaml": GOOD}), "validate")
    assert (said.returncode, said.stdout) == (
        0, "No problems. 1 resource is declared.\nRun `lab plan` to see what would change.\n",
    )  # fmt: skip


def test_every_problem_with_its_place(make: Make) -> None:
    """The format of DESIGN §10: place, summary, why, do; the count last; the same as JSON."""
    root = make(
        {
            "file/a.yaml": "path: /a\nconten: x\ncontent: x\n",
            "file/b.yaml": "path: /b\ncontent: x\nneeds: [file.nope]\n",
        }
    )
    said = lab(root, "validate")
    assert said.returncode == 1
    assert (
        said.stdout.splitlines()[0] == "conf/file/a.yaml:2:1  unknown key `conten` in file.a — did you mean `content`?"
    )
    assert said.stdout.splitlines()[-1] == "2 problems. Nothing was changed."
    assert "Traceback" not in said.stdout + said.stderr
    out = json.loads(lab(root, "validate", "--json").stdout)
    assert [(p["file"], p["line"]) for p in out["problems"]] == [("conf/file/a.yaml", 2), ("conf/file/b.yaml", 3)]


def test_all_profiles_and_what_none_of_them_chooses(make: Make) -> None:
    """A mistake in a file that the profile leaves out is told too; `--all-profiles` composes each."""
    head = LAB.replace("host: box", "host: box\n  - profile: one")
    root = make({
        "lab.yaml": head,
        "profile/one.yaml": "# @package _global_\nresources: {file: a}\n",
        "profile/two.yaml": "# @package _global_\nresources: {file: [a, b]}\n",
        "file/a.yaml": GOOD,
        "file/b.yaml": "path: ${lab.nope}\ncontent: x\n",
    })  # fmt: skip
    assert lab(root, "validate").returncode == 0
    said = lab(root, "validate", "--all-profiles")
    assert said.returncode == 1
    assert said.stdout.startswith("conf/file/b.yaml:1:7")
    make({"lab.yaml": head, "file/b.yaml": "path: 5\ncontent: x\n"})
    assert lab(root, "validate").stdout.startswith("conf/file/b.yaml:1:7  `path` must be text, not the number 5")


def test_the_kind_pages_follow_the_docstrings(tmp_path: Path) -> None:
    """A page is stale when its text differs, when it is missing, and when its kind is gone."""
    assert set(docs.write(tmp_path)) == set(docs.pages())
    assert docs.check(tmp_path) == []
    folder = tmp_path / docs.FOLDER
    (folder / "file.md").write_text("other")
    (folder / "host.md").unlink()
    (folder / "ghost.md").write_text("gone")
    assert docs.check(tmp_path) == ["file.md", "ghost.md", "host.md"]
    docs.write(tmp_path)
    assert docs.check(tmp_path) == []
    assert "| `mode` | text | `0644` | Permission bits, octal, quoted. |" in (folder / "file.md").read_text()
