"""conda itself and our locks: it installs what they say through conda-lock, and solves what rattler solves.

This is conda 24.7, as conda-lock carries it, with three packages beside it that conda needs to solve and to unpack.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import envlock, envs, prefix, uv
from lab.core.problem import Problems
from lab.core.steps_envs import LockEnv
from tests.envs.stands import Stage, lock, spec, step_for

BESIDE = """
conda-package-handling==2.6.0 --hash=sha256:a804c58fcec6f77c750b18455fa9865eb95f63912b149133627bc50636f551df
archspec==0.2.7 --hash=sha256:b6d97c2d840d8538d3f63b70c7c45ace2d26b3d9591d7c93d5fb33e50b1bc592
pycosat==0.6.6 --hash=sha256:a376cfae20b16fcfbef24bf3c047a8a294c35032bb051fa98842c12bbab6f0ff
"""
LAUNCHER = """#!/bin/sh
export PYTHONPATH='{home}' HOME='{home}/home' CONDARC=/dev/null CONDA_SOLVER=classic CONDA_REPORT_ERRORS=false
export CONDA_PKGS_DIRS="${{CONDA_PKGS_DIRS:-{home}/pkgs}}"
exec '{python}' -m conda "$@"
"""


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """conda's command, in a home of its own."""
    home = tmp_path_factory.mktemp("conda")
    (home / "home").mkdir()
    (home / "beside.txt").write_text(BESIDE)
    found = importlib.util.find_spec("conda_lock")
    assert found is not None
    assert found.submodule_search_locations
    (home / "conda").symlink_to(Path(found.submodule_search_locations[0], "_vendor", "conda"))
    rc, _, err = uv.call("pip", "install", "-q", "--python", sys.executable, "--target", str(home), "--no-deps",
                         "--require-hashes", "-r", str(home / "beside.txt"))  # fmt: skip
    if rc:
        pytest.skip(f"what conda needs beside it cannot be had here: {err[-200:]}")
    command = home / "bin" / "conda"
    command.parent.mkdir(exist_ok=True)
    command.write_text(LAUNCHER.format(home=home, python=sys.executable))
    command.chmod(0o755)
    return command


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
