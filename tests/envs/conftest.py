"""Fixtures of the environments' tests: one channel for all, and conda itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from lab.adapters import uv
from tests.envs.stands import channel


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local channel of real packages; read it only."""
    return channel(tmp_path_factory.mktemp("channel"))


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


@pytest.fixture(scope="session")
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
