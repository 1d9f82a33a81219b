"""What Lab is made of: dependencies by hash, builds that repeat to the byte, and a wheel that needs no repository."""

# ruff: noqa: E501

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.labs import REPO

LOCKED = (REPO / ".ci/requirements.txt").read_text()
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def wanted() -> list[Requirement]:
    """Every requirement of what `./bootstrap test` installs, with the extras it names spelled out."""
    extras, found, seen = PROJECT["optional-dependencies"], [], set()
    queue = [*PROJECT["dependencies"], "llm-lab[demo,host,dev,plots]"]
    while queue:
        requirement = Requirement(queue.pop())
        if requirement.name != PROJECT["name"]:
            found.append(requirement)
        for extra in sorted(requirement.extras - seen if requirement.name == PROJECT["name"] else ()):
            seen.add(extra)
            queue += extras[extra]
    return found


def test_every_dependency_is_locked_with_hashes_and_no_host() -> None:
    """Each locked file has a SHA-256; each declared requirement is locked in a version it allows; no address is named."""
    blocks = [b for b in re.split(r"(?m)^(?=[A-Za-z0-9])", LOCKED) if b.strip()]
    versions: dict[str, list[str]] = {}
    for block in blocks:
        name, version = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", block).groups()  # type: ignore[union-attr]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name
        versions.setdefault(canonicalize_name(name), []).append(version)
    assert "://" not in LOCKED
    for requirement in wanted():
        locked = versions.get(canonicalize_name(requirement.name), [])
        fits = [v for v in locked if requirement.specifier.contains(v, prereleases=True)]
        assert fits, f"{requirement} is not locked: run .ci/lock"


def test_every_locked_package_has_its_licence_listed() -> None:
    """The page names each of them."""
    page = (REPO / "docs/licences.md").read_text()
    for name in set(re.findall(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", LOCKED)):
        assert f"| {name} | " in page or f" {name} " in page, f"{name} is not listed: run .ci/lock"


def built(tmp: Path, name: str) -> Path:
    """A folder with wheel and source distribution, built from a copy of the tracked files that lies elsewhere."""
    copy, out = tmp / name / "copy", tmp / name / "dist"
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for file in filter(None, tracked):
        if (REPO / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / file, copy / file)
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1760000000"}
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=copy, env=env, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build."""
    pytest.importorskip("hatchling")
    if not (REPO / ".git").exists():
        pytest.skip("needs the git repository")
    return built(tmp_path_factory.mktemp("dist"), "one")


def test_a_build_repeats_to_the_byte(dist: Path, tmp_path: Path) -> None:
    """Wheel and source distribution are the same from another folder, at another time."""
    again = built(tmp_path, "two")
    names = sorted(p.name for p in dist.iterdir())
    assert len(names) == 2
    assert names == sorted(p.name for p in again.iterdir())
    for name in names:
        one, two = ((d / name).read_bytes() for d in (dist, again))
        assert hashlib.sha256(one).hexdigest() == hashlib.sha256(two).hexdigest(), name


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(dist: Path, tmp_path: Path) -> None:
    """In an environment of its own with nothing but its dependencies: a lab is made, planned, applied and destroyed."""
    (wheel,) = dist.glob("*.whl")
    assert any(n.startswith("lab/_shipped/recipes/") for n in zipfile.ZipFile(wheel).namelist())
    venv, lab, env = tmp_path / "venv", tmp_path / "lab", {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "install", "-q", "--disable-pip-version-check", wheel], check=True)

    def say(*words: str) -> str:
        done = subprocess.run([venv / "bin/lab", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done
        return done.stdout

    say("init", str(lab))
    (lab / "conf/file").mkdir(exist_ok=True)
    (lab / "conf/file/hello.yaml").write_text(f"path: {tmp_path}/hello\ncontent: hello\n")
    say("-C", str(lab), "apply", "--yes", "--only", "file.hello")
    assert (tmp_path / "hello").read_text() == "hello"
    assert "No changes" in say("-C", str(lab), "plan", "--only", "file.hello")
    say("-C", str(lab), "recipes")
    say("-C", str(lab), "destroy", "--all", "--yes")
    assert not (tmp_path / "hello").exists()
