"""Buildah builds the Containerfile of an env, and the env runs in the image.

The two images that a Containerfile stands on are made here, as no registry of images need be in reach: this interpreter
and what it links to, a shell; and in place of micromamba, conda, told to do the same.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lab.adapters import container
from lab.app.lock import lock
from tests.envs.stands import SHORT
from tests.envs.test_kind import ONE, done, lab_at
from tests.envs.test_lock import wheel

NEEDED = (
    "requests urllib3 idna certifi charset_normalizer boltons ruamel tqdm pluggy packaging platformdirs distro"
    " conda_package_streaming zstandard"
)
MICROMAMBA = """#!/bin/sh
# micromamba install -y -n base -f FILE, and micromamba clean -ay
[ "$1" = install ] || exit 0
export PYTHONPATH=/opt/tool HOME=/tmp CONDARC=/dev/null CONDA_REPORT_ERRORS=false CONDA_PKGS_DIRS=/tmp/pkgs
python -m conda create --yes --quiet --prefix /opt/conda --file "$6" && rm -rf /tmp/pkgs
"""
Build = Callable[..., str]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="images are built by root here"),
]


def folder_of(package: str) -> Path:
    """Where a package is installed."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def linked(*binaries: Path) -> set[str]:
    """The shared libraries that these load."""
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    return {word for line in said.splitlines() for word in line.split() if word.startswith("/") and word[-1] != ":"}


def interpreter(root: Path) -> None:
    """This Python where it is here, with pip, and a shell: the root of an image."""
    exe, stdlib = Path(os.path.realpath(sys.executable)), Path(sysconfig.get_path("stdlib"))
    skip = shutil.ignore_patterns(
        "site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__", "config-*"
    )
    shutil.copytree(stdlib, root / str(stdlib)[1:], ignore=skip)
    (root / str(exe.parent)[1:]).mkdir(parents=True, exist_ok=True)
    shutil.copy(exe, root / str(exe)[1:])
    for library in linked(exe, *stdlib.glob("lib-dynload/*.so")):
        target = root / library[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    bin_ = root / "usr/local/bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").symlink_to(exe)
    site = root / str(stdlib)[1:] / "site-packages"
    shutil.copytree(folder_of("pip"), site / "pip")
    (root / "bin").mkdir(exist_ok=True)
    shutil.copy(shutil.which("busybox") or pytest.skip("busybox is not installed"), root / "bin/busybox")
    for name in ("sh", "printf", "rm", "cat", "env"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "tmp").mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory, conda: Path) -> Iterator[Build]:
    """buildah with a storage of its own, which holds the two images."""
    home = tmp_path_factory.mktemp("images")
    flags = ["--root", home / "root", "--runroot", home / "run", "--storage-driver", "vfs"]

    def call(*args: str | Path) -> str:
        said = subprocess.run(
            ["buildah", *flags, *args],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        )
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    plain, tool = home / "plain", home / "tool"
    interpreter(plain)
    (plain / "Containerfile").write_text("FROM scratch\nCOPY . /\nENV PATH=/usr/local/bin:/bin\n")
    call("build", "-t", container.PYTHON.format(version=SHORT), plain)
    there = tool / "opt/tool"
    shutil.copytree(conda.parents[1], there, symlinks=False, ignore=shutil.ignore_patterns("home", "pkgs"))
    for name in NEEDED.split():
        shutil.copytree(folder_of(name), there / name)
    # conda's own modules name each other as what conda-lock carries.
    (there / "conda_lock/_vendor").mkdir(parents=True)
    (there / "conda_lock/_vendor/conda").symlink_to("../../conda")
    (tool / "usr/local/bin").mkdir(parents=True)
    (tool / "usr/local/bin/micromamba").write_text(MICROMAMBA)
    (tool / "usr/local/bin/micromamba").chmod(0o755)
    (tool / "Containerfile").write_text(f"FROM {container.PYTHON.format(version=SHORT)}\nCOPY . /\n")
    call("build", "--pull-never", "-t", container.BASE, tool)
    yield call
    for mounted in (home / "root").glob("**/merged"):
        subprocess.run(["umount", mounted], check=False)


def said_in(buildah: Build, root: Path, name: str, *command: str) -> str:
    """What a command says in the image that an env's Containerfile makes."""
    buildah("build", "--pull-never", "-f", root / f"{name}.Containerfile", "-t", f"env-{name}", root)
    made = buildah("from", "--pull-never", f"env-{name}").strip()
    return buildah("run", "--", made, *command)


def test_an_env_of_conda_packages_runs_in_its_image(tmp_path: Path, built: Path, buildah: Build) -> None:
    """S0-4.1-4: the channel of the repository is copied in, its packages are installed, and the env's program runs."""
    shutil.copytree(built, tmp_path / "channel")
    lab = lab_at(tmp_path, one=ONE + "container: one.Containerfile\n")
    lock(lab)
    done(lab)
    assert said_in(buildah, tmp_path, "one", "labhello").split() == ["labhello", "1.1.0", "/opt/conda"]


def test_an_env_of_python_packages_runs_in_its_image(
    tmp_path: Path, buildah: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S0-4.1-4: pip installs what is locked, by its hash, and refuses another file of that name."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    archive = wheel(wheels, "alpha", "1.0")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(wheels)))
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_FIND_LINKS", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    try:
        lab = lab_at(tmp_path, two=f"python: '{SHORT}'\npip: [alpha]\ncontainer: two.Containerfile\n")
        lock(lab)
        done(lab)
        said = said_in(buildah, tmp_path, "two", "python", "-c", "import alpha; print(alpha.__version__)")
        assert said.split() == ["1.0"]
        archive.unlink()
        wheel(wheels, "alpha", "1.0", "Summary: another\n")
        with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
            said_in(buildah, tmp_path, "two", "true")
    finally:
        server.shutdown()
        server.server_close()
