"""An env is locked, installed, watched and repaired with the real tools, from a local channel."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.adapters import envlock, envs
from lab.adapters.closed import run
from lab.core.steps_envs import InstallEnv, LockEnv, RemoveEnv
from tests.envs.stands import SHORT, Stage, channel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return channel(tmp_path_factory.mktemp("channel"))


def spec(built: Path, *conda: str) -> dict[str, object]:
    return {"channels": [str(built)], "conda": [*conda], "python": SHORT, "platforms": ["osx-arm64", "linux-64"]}


def made(root: Path, built: Path, *conda: str, name: str = "one") -> tuple[Stage, InstallEnv]:
    stage = Stage(root)
    envlock.lock(LockEnv(name, spec(built, *conda)), stage)
    step = InstallEnv(name, str(root / "state" / "envs" / name), "linux-64")
    envs.install(step, stage)
    return stage, step


def test_locked_installed_tampered_repaired_removed(tmp_path: Path, built: Path) -> None:
    """S0-US-001-1: what is locked is installed; drift is named by file and package, and exactly that is repaired."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0", "labprefix")
    for depth in (0, 1, 2):
        assert envs.observe(step.link, depth)["state"] == "intact"
    done = run(step.link, ["labhello"])
    assert done.text.startswith("labhello 1.1.0"), done.text
    before = envs.observe(step.link)
    victim = Path(step.link, "lib", f"python{SHORT}", "site-packages", "labhello", "__init__.py")
    victim.write_text("print('evil')\n")
    (victim.parent / "foreign.py").write_text("")
    Path(step.link, "share/labdata/a.txt").unlink()
    seen = envs.observe(step.link, 1)
    assert seen["state"] == "1 deleted, 1 edited, 1 foreign"
    rel = f"lib/python{SHORT}/site-packages/labhello"
    assert "conda:labhello 1.1.0" in seen["files"][f"{rel}/__init__.py"]
    assert seen["files"]["share/labdata/a.txt"] == "deleted (conda:labdata 1.0)"
    envs.install(step, stage)
    assert envs.observe(step.link, 2) == before
    envs.remove(RemoveEnv("one", step.link), stage)
    assert not (tmp_path / "state" / "envs").exists()
