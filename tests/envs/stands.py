"""What tests of environments stand on: a real local channel, a stage, and a small lab around them."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.adapters import envlock, envs
from lab.adapters.channel import PLACEHOLDER, index, package
from lab.core.facts import Facts
from lab.core.steps_envs import InstallEnv, LockEnv

SHORT = f"{sys.version_info.major}.{sys.version_info.minor}"
FULL = "{}.{}.{}".format(*sys.version_info[:3])
_CLOSED = "include-system-site-packages = false"
CP = f"cp{SHORT.replace('.', '')}"


@dataclass
class Stage:
    """A performer's stage in a temporary lab."""

    root: Path
    address: str = "env.test"
    offline: bool = False
    stage: str = ""
    outcome: Facts = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def scratch(self) -> Path:
        path = self.state / "work" / self.address
        path.mkdir(parents=True, exist_ok=True)
        return path

    def progress(self, done: float, total: float | None = None, unit: str = "B") -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def check(self) -> None: ...

    def secret(self, reference: str) -> str:
        return os.environ[reference.partition(":")[2]]

    def remember(self, path: Path, sha256: str) -> None: ...


def module(name: str, version: str, body: str = "") -> dict[str, Any]:
    """The files of a noarch Python package with one module."""
    main = f"def main():\n    import sys\n    print({name!r}, __version__, sys.prefix)\n"
    text = f"__version__ = {version!r}\n{body}\n{main}"
    info = f"site-packages/{name}-{version}.dist-info"
    return {
        f"site-packages/{name}/__init__.py": text.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/INSTALLER": b"conda\n",
        f"{info}/RECORD": b"",
    }


def python_package(channel: Path) -> None:
    """`python` as a thin package: a pyvenv.cfg and links to the interpreter of this host."""
    exe = os.path.realpath(f"{sysconfig.get_config_var('BINDIR')}/python{SHORT}")
    files: Mapping[str, Any] = {
        f"bin/python{SHORT}": exe,
        "bin/python3": f"python{SHORT}",
        "bin/python": f"python{SHORT}",
        "pyvenv.cfg": f"home = {os.path.dirname(exe)}\n{_CLOSED}\nversion = {FULL}\n".encode(),
        f"lib/python{SHORT}/site-packages/README.txt": b"site-packages of a thin python\n",
    }
    abi = [f"python_abi {SHORT}.* *_{CP}"]
    package(channel, "python", FULL, build="thin_0_cpython", subdir="linux-64", depends=abi, files=files)
    stub = {f"bin/python{SHORT}": (b"#!/bin/sh\n", 0o755)}
    package(
        channel, "python", FULL, build="stub_0_cpython", subdir="osx-arm64", depends=[*abi, "__osx >=11.0"], files=stub
    )
    package(channel, "python_abi", SHORT, build=f"0_{CP}", constrains=[f"python {SHORT}.* *_cpython"])


def channel(folder: Path) -> Path:
    """A channel of real packages: two versions of two of them, prefixes written as text and binary, platform stacks."""
    python_package(folder)
    package(folder, "labdata", "1.0", files={"share/labdata/a.txt": b"hello data\n"})
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        package(
            folder,
            "labhello",
            version,
            noarch="python",
            depends=["python >=3.9", "labdata >=1"],
            entry_points=["labhello = labhello:main"],
            files=module("labhello", version),
        )
    for version in ("1.0", "1.1"):
        package(folder, "labside", version, noarch="python", depends=["python"], files=module("labside", version))
    text = f"#!{PLACEHOLDER}/bin/python\nimport sys; print(sys.prefix)\n".encode()
    blob = b"\x7fFAKE\0" + PLACEHOLDER.encode() + b"/share\0tail\0"
    package(
        folder,
        "labprefix",
        "1.0",
        subdir="linux-64",
        depends=["__glibc >=2.17"],
        files={
            "bin/labprefix": (text, 0o755),
            "lib/labprefix.bin": blob,
            "etc/labprefix.conf": f"root={PLACEHOLDER}\n".encode(),
        },
    )
    package(
        folder, "labprefix", "1.0", subdir="osx-arm64", depends=["__osx >=11.0"], files={"etc/labprefix.conf": b"mac\n"}
    )
    for version, osx in (("0.30.0", "13.5"), ("0.31.0", "15.0")):
        package(folder, "labmetal", version, subdir="osx-arm64", depends=["python", f"__osx >={osx}"])
    package(folder, "labclash", "1.0", depends=["labhello <2"])
    index(folder)
    return folder


def spec(built: Path | str, *conda: str, **more: Any) -> dict[str, Any]:
    """A spec of conda packages from a channel, for both platforms."""
    return {
        "channels": [str(built)],
        "conda": [*conda],
        "python": SHORT,
        "platforms": ["osx-arm64", "linux-64"],
        **more,
    }


def step_for(root: Path, name: str = "one", **more: Any) -> InstallEnv:
    """The step that installs an env of a temporary lab."""
    return InstallEnv(name, str(root / "state" / "envs" / name), "linux-64", **more)


def made(root: Path, built: Path | str, *conda: str, name: str = "one", **more: Any) -> tuple[Stage, InstallEnv]:
    """An env that was locked and installed."""
    stage = Stage(root)
    lock(stage, name, spec(built, *conda, **more))
    step = step_for(root, name)
    envs.install(step, stage)
    return stage, step


def site(step: InstallEnv, *parts: str) -> Path:
    """A path in the env's site-packages."""
    return Path(step.link, "lib", f"python{SHORT}", "site-packages", *parts)


_LOCKS: dict[str, Path] = {}


def lock(stage: Stage, name: str, asked: dict[str, Any]) -> None:
    """An env is locked; one that was locked from the same channel before in this session is copied."""
    key = f"{name} {json.dumps(asked, sort_keys=True)}"
    where = envlock.locks(stage)
    kept = _LOCKS.get(key)
    if kept is None or any(where.glob(f"{name}.*")) or asked["channels"][0].startswith("."):
        envlock.lock(LockEnv(name, asked), stage)
        kept = _LOCKS[key] = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, kept, ignore_errors=True)
        for path in where.glob(f"{name}.*"):
            shutil.copy(path, kept)
        return
    where.mkdir(parents=True, exist_ok=True)
    for path in kept.iterdir():
        shutil.copy(path, where)
