"""Python packages beside conda's in one prefix: uv fills in what conda has not, and touches nothing that conda has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lab.adapters import envlock, envs
from lab.adapters.channel import index, package
from lab.adapters.closed import run
from lab.core.problem import Problems
from lab.core.steps_envs import LockEnv
from tests.envs.stands import Stage, made, module, site, spec, step_for
from tests.envs.test_lock import wheel


@pytest.fixture
def both(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The channel with conda's pip and a labside as conda packs it, and wheels: one asks for it, one is newer."""
    mine, wheels = tmp_path / "channel", tmp_path / "wheels"
    shutil.copytree(built, mine)
    for name, version in (("pip", "24.0"), ("labside", "1.0")):
        files = module(name, version)
        listed = "".join(f"{f.removeprefix('site-packages/')},,\n" for f in files).encode()
        files[f"site-packages/{name}-{version}.dist-info/RECORD"] = listed
        package(mine, name, version, noarch="python", depends=["python"], files=files)
    index(mine)
    wheels.mkdir()
    wheel(wheels, "alpha", "1.0", "Requires-Dist: labside >=1.0\n")
    wheel(wheels, "alpha", "2.0", "Requires-Dist: labside >=3.0\n")
    for version in ("1.0", "3.0"):
        wheel(wheels, "labside", version)
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    return mine


def test_condas_own_packages_stay(tmp_path: Path, both: Path) -> None:
    """uv chooses what fits conda's versions and installs only what is not conda's; each is repaired as its own."""
    stage, step = made(tmp_path, both, "labside ==1.0", pip=["alpha"], platforms=["linux-64"])
    held = envlock.summary("one", stage)["platforms"]["linux-64"]
    assert (held["packages"]["alpha"], held["packages"]["labside"], held["pip"]) == ("1.0", "1.0", 1)
    print_both = ["python", "-c", "import alpha, labside; print(alpha.__version__, labside.__version__)"]
    assert run(step.link, print_both).text.split() == ["1.0", "1.0"]
    assert site(step, "labside-1.0.dist-info", "INSTALLER").read_text() == "conda\n"
    before = envs.observe(step.link, 2)
    assert before["state"] == "intact"
    for name, of in (("alpha.py", "pip:alpha 1.0"), ("labside/__init__.py", "conda:labside 1.0")):
        site(step, name).write_text("evil = True\n")
        (said,) = envs.observe(step.link, 1)["files"].values()
        assert of in said
        envs.install(step, stage)
        assert envs.observe(step.link, 2) == before
    assert run(step.link, print_both).text.split() == ["1.0", "1.0"]


def test_what_conda_has_decides(tmp_path: Path, both: Path) -> None:
    """A Python package that needs another version than conda's is refused, not installed over it."""
    asked = spec(both, "labside ==1.0", pip=["alpha ==2.0"], platforms=["linux-64"])
    with pytest.raises(Problems, match="no set of Python packages answers the spec on linux-64"):
        envlock.lock(LockEnv("one", asked), Stage(tmp_path))
    assert not os.path.lexists(step_for(tmp_path).link)
