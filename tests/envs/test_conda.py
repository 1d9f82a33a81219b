"""conda itself and our locks: it installs what they say through conda-lock, and solves what rattler solves.

This is conda 24.7, as conda-lock carries it, with three packages beside it that conda needs to solve and to unpack.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import envlock, envs, prefix
from lab.core.problem import Problems
from lab.core.steps_envs import LockEnv
from tests.envs.stands import Stage, lock, spec, step_for


def contents(root: Path, names: list[str]) -> dict[str, bytes]:
    """The bytes of each, wherever the prefix is: what is written into a file is `@`, without its padding."""
    return {rel: (root / rel).read_bytes().replace(bytes(root), b"@").replace(b"\0", b"") for rel in names}


@pytest.mark.slow
def test_conda_lock_installs_our_lock_with_conda(
    tmp_path: Path, built: Path, conda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DC-6: `conda-lock install` lets conda make the env from our lock: the same packages, and the same content."""
    stage = Stage(tmp_path)
    lock(stage, "one", spec(built, "labhello ==1.1.0", "labprefix"))
    step = step_for(tmp_path)
    envs.install(step, stage)
    theirs = tmp_path / "theirs"
    monkeypatch.setenv("LAB_ROOT", str(tmp_path))
    said = subprocess.run(
        [Path(sys.executable).with_name("conda-lock"), "install", "--conda", conda, "--prefix", theirs,
         envlock.locks(stage) / "one.conda-lock.yml"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr + said.stdout
    ours = Path(os.path.realpath(step.link))
    assert sorted(p.name for p in theirs.glob("conda-meta/*.json")) == sorted(
        p.name for p in ours.glob("conda-meta/*.json")
    )
    owned = prefix.owners(str(ours))
    carried = [rel for rel, of in owned.items() if of.portable not in ("generated", "link")]
    assert {"share/labdata/a.txt", "lib/labprefix.bin", "bin/labprefix"} < set(carried)
    assert contents(theirs, carried) == contents(ours, carried)
    assert [rel for rel in owned if "__pycache__" not in rel and not os.path.lexists(theirs / rel)] == []
    hello = subprocess.run([theirs / "bin" / "labhello"], capture_output=True, text=True)
    assert hello.stdout.split()[1:] == ["1.1.0", str(theirs)], hello.stderr


@pytest.mark.slow
def test_conda_solves_what_rattler_solves(
    tmp_path: Path, built: Path, conda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`solver: external` with conda itself gives the lock that rattler gives, and a reason where there is none."""
    monkeypatch.setenv("LAB_CONDA", str(conda))
    asked = spec(built, "labhello ==1.1.0", "labprefix", on={"osx-arm64": {"conda": ["labmetal"]}})
    mine = envlock.lock(LockEnv("one", asked), Stage(tmp_path / "a"))
    theirs = envlock.lock(LockEnv("one", {**asked, "solver": "external"}), Stage(tmp_path / "b"))
    assert mine == theirs
    assert mine["platforms"]["osx-arm64"]["packages"]["labmetal"] == "0.30.0"
    with pytest.raises(Problems, match="no set of packages") as e:
        envlock.lock(LockEnv("two", {**spec(built, "labclash", "labhello >=2"), "solver": "external"}), Stage(tmp_path))
    assert "labhello" in str(e.value)
