"""One lock holds macOS, Linux and Windows, each solved on Linux.

Proves S2-1.2-1 with tests/test_elsewhere.py: Lab itself is for macOS and Linux, and for Windows by WSL2.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.adapters import envlock, uv
from lab.adapters.channel import index, package
from lab.core.steps_envs import LockEnv
from tests.envs.stands import FULL, SHORT, Stage, lock, spec
from tests.envs.test_lock import wheel

THREE = ["osx-arm64", "linux-64", "win-64"]


@pytest.fixture
def wide(tmp_path: Path, built: Path) -> Path:
    """The channel with a Python for Windows, and a package that each platform has of its own."""
    mine = tmp_path / "channel"
    shutil.copytree(built, mine)
    package(mine, "python", FULL, build="win_0_cpython", subdir="win-64", depends=[f"python_abi {SHORT}.*", "__win"])
    for platform, needs in (("osx-arm64", "__osx >=13"), ("linux-64", "__glibc >=2.17"), ("win-64", "__win")):
        package(mine, "labown", "1.0", build=platform.replace("-", "_"), subdir=platform, depends=[needs, "labhello"])
    index(mine)
    return mine


def test_three_platforms_are_solved_from_one_channel(tmp_path: Path, wide: Path) -> None:
    """Each has its own build of what differs, the same version of what does not, and is in conda-lock's file."""
    stage = Stage(tmp_path)
    asked = spec(wide, "labown", platforms=THREE, on={"win-64": {"conda": ["labside"]}})
    made: dict[str, Any] = envlock.lock(LockEnv("one", asked), stage)
    assert list(made["platforms"]) == THREE
    for platform in THREE:
        held = made["platforms"][platform]["packages"]
        assert (held["labown"], held["labhello"], held["python"]) == ("1.0", "2.0.0", FULL)
        assert ("labside" in held) == (platform == "win-64")
    written = yaml.safe_load((envlock.locks(stage) / "one.conda-lock.yml").read_text())
    own = {p["platform"]: p["url"] for p in written["package"] if p["name"] == "labown"}
    assert {p: url.rsplit("/", 2)[1] for p, url in own.items()} == {p: p for p in THREE}
    assert all(len(p["hash"]["sha256"]) == 64 for p in written["package"])
    assert made["virtual_packages"]["win-64"] == {"__win": "0", "__archspec": "1 x86_64"}


def test_what_one_platform_lacks_is_told_of_that_platform(tmp_path: Path, built: Path) -> None:
    """The channel has no Python for Windows: the problem names the platform, and no lock is written."""
    with pytest.raises(Exception, match="win-64"):
        lock(Stage(tmp_path), "one", spec(built, "labhello", platforms=THREE))
    assert not envlock.locks(Stage(tmp_path)).exists()


def test_each_platform_gets_its_own_wheel(tmp_path: Path) -> None:
    """uv resolves for each from here; the wheel is the one that an installer there would take."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    tags = {"osx-arm64": "macosx_11_0_arm64", "linux-64": "manylinux_2_17_x86_64", "win-64": "win_amd64"}
    made = wheel(wheels, "native", "1.0")
    for tag in tags.values():
        shutil.copyfile(made, wheels / f"native-1.0-cp312-cp312-{tag}.whl")
    made.unlink()
    for platform, tag in tags.items():
        virtual = envlock.VIRTUAL[platform.partition("-")[0]]
        wanted = ["--no-index", f"--find-links {wheels}", "native"]
        (found,) = uv.resolve(wanted, platform, "3.12", virtual, {}, cache=tmp_path / "cache")
        assert found["url"].endswith(f"native-1.0-cp312-cp312-{tag}.whl"), platform


@pytest.mark.parametrize(("osx", "version"), [("14.0", "1.0"), ("15.1", "2.0"), ("26", "2.0")])
def test_what_a_mac_can_run_is_what_is_locked(tmp_path: Path, osx: str, version: str) -> None:
    """Of two versions, one for macOS 15 only: uv is told the macOS that the lock is for, which else it takes for 13."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for made, tag in (("1.0", "macosx_14_0_arm64"), ("2.0", "macosx_15_0_arm64")):
        wheel(wheels, "native", made).rename(wheels / f"native-{made}-cp312-cp312-{tag}.whl")
    wanted = ["--no-index", f"--find-links {wheels}", "native"]
    (found,) = uv.resolve(wanted, "osx-arm64", "3.12", {"__osx": osx}, {}, cache=tmp_path / "cache")
    assert found["version"] == version
