"""`lab bootstrap` says what a machine misses for the lab and gets it with the fewest commands."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from lab.app import bootstrap, tools
from tests.labs import TestLab

BACKUP = "paths: [conf]\nrepo: ROOT/repo\npassword: env:SECRET\n"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with git and nothing else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git") or "")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(tools, "SYSTEM", ())
    return programs


def test_what_nothing_declared_needs_may_be_missing(bare: Path, tmp_path: Path) -> None:
    lab = TestLab.make(tmp_path / "lab", {"file/a": "path: ROOT/a\ncontent: x\n"})
    told = lab("bootstrap", "--check")
    assert told.code == 0, told.out
    assert "  – restic  not installed; only for restic" in told.out
    assert "This machine has what the lab needs." in told.out


def test_what_is_needed_is_named_with_the_one_command(bare: Path, tmp_path: Path) -> None:
    """A declared backup needs restic: exit code 1, one command; doctor says the same (S0-5.1-2)."""
    lab = TestLab.make(tmp_path / "lab", {"backup/b": BACKUP})
    told = lab("bootstrap", "--check")
    assert told.code == 1
    assert "  ✗ restic  not installed; restic needs it" in told.out
    (command,) = json.loads(lab("bootstrap", "--check", "--json").out)["commands"]
    assert shlex.split(command)[-1] == "restic"
    assert command in told.out
    assert f"✗ restic  not installed\n      do  {command}" in lab("doctor", "host").out
    asked = lab("bootstrap")
    assert (asked.code, "nobody can be asked here" in asked.err) == (1, True)
    failed = lab("bootstrap", "--yes")  # this bare machine has no package manager either
    assert (failed.code, "not here to install restic" in failed.err) == (1, True)


def test_commands_are_joined() -> None:
    """One command for the system's packages, one for Lab's extras."""
    some = [t for t in tools.TOOLS if t.name in ("restic", "borg", "rattler", "optuna")]
    packages, extras = tools.commands(some, "linux")
    assert packages[-3:] == ("--no-install-recommends", "borgbackup", "restic")
    assert extras[-1] == "llm-lab[envs,sweep]"
    assert tools.commands(some, "darwin")[0] == ("brew", "install", "borgbackup", "restic")


def test_a_module_is_got_by_the_environments_own_pip(capfd: pytest.CaptureFixture[str]) -> None:
    """What Lab's own environment already holds is asked for by its extra, and nothing changes."""
    bootstrap.get([t for t in tools.TOOLS if t.name == "rattler"])
    assert "py-rattler" in capfd.readouterr().out
