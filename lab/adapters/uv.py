"""uv: Python packages resolved with hashes for any platform, and installed as locked; host interpreters as venvs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.core.problem import problem

TARGETS = {"linux-64": "x86_64-manylinux_{glibc}", "linux-aarch64": "aarch64-manylinux_{glibc}",
           "osx-arm64": "aarch64-apple-darwin", "osx-64": "x86_64-apple-darwin",
           "win-64": "x86_64-pc-windows-msvc"}  # fmt: skip


def binary() -> str:
    """uv's path; a problem where it is not installed."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if not found:
        raise problem("uv is not installed", why="Python packages are resolved by it", do="pip install 'llm-lab[envs]'")
    return found


def call(*args: str, cwd: Path | None = None, env: dict[str, str] | None = None, cache: Path | None = None,
         offline: bool = False, check: Callable[[], None] = lambda: None) -> tuple[int, str, str]:  # fmt: skip
    """Exit status, stdout and stderr of one uv command, untouched by the caller's uv settings."""
    clean = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME")
    }
    if cache is not None and "UV_CACHE_DIR" not in clean:
        clean["UV_CACHE_DIR"] = str(cache)
    flags = ["--offline"] if offline else []
    process = subprocess.Popen(
        [binary(), *args, *flags, "--no-config"],
        cwd=cwd,
        env={**clean, "UV_NO_PROGRESS": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        try:
            out, err = process.communicate(timeout=0.2)
            return process.returncode, out, err
        except subprocess.TimeoutExpired:
            try:
                check()
            except BaseException:
                process.kill()
                process.communicate()
                raise


def resolve(
    requirements: list[str],
    platform: str,
    python: str,
    virtual: dict[str, str],
    conda: dict[str, str],
    *,
    preferred: dict[str, str] | None = None,
    sdist: bool | list[str] = False,
    cache: Path | None = None,
    offline: bool = False,
    check: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """The locked Python packages of a platform: `{name, version, url, sha256, size, depends}`, conda's own left out.

    `conda` holds the versions that conda's Python packages have: they are pinned and never installed again.
    `preferred` holds locked versions that stay while they fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "r.in").write_text("\n".join(requirements) + "\n")
        (here / "c.txt").write_text("".join(f"{n}=={v}\n" for n, v in conda.items()))
        env = {}
        if platform.startswith("osx"):
            version = virtual.get("__osx", "14.0")
            env["MACOSX_DEPLOYMENT_TARGET"] = version if "." in version else f"{version}.0"
        glibc = virtual.get("__glibc", "2.28").replace(".", "_")
        if preferred:
            (here / "out.txt").write_text("".join(f"{n}=={v}\n" for n, v in preferred.items()))
        wheels = [] if sdist is True else ["--only-binary", ":all:"]
        if isinstance(sdist, list | tuple):
            wheels += [x for name in sdist for x in ("--no-binary", name)]
        target = TARGETS[platform].format(glibc=glibc)
        common = ["--python-platform", target, "--python-version", python, *wheels, "-c", "c.txt", "-q"]
        pins = []
        if preferred:
            # A first pass in the requirements format keeps what an existing output names; the second writes hashes.
            rc, _, err = call("pip", "compile", *common, "-o", "out.txt", "r.in", cwd=here, env=env, cache=cache,
                              offline=offline, check=check)  # fmt: skip
            if rc:
                raise _unresolved(err, platform)
            pins = ["-c", "out.txt"]
        rc, _, err = call("pip", "compile", *common, *pins, "--format", "pylock.toml", "-o", "pylock.toml", "r.in",
                          cwd=here, env=env, cache=cache, offline=offline, check=check)  # fmt: skip
        if rc:
            raise _unresolved(err, platform)
        lock = tomllib.loads((here / "pylock.toml").read_text())
    out = []
    for p in lock.get("packages", ()):
        if normalized(p["name"]) in conda:
            continue
        chosen = best_wheel(p.get("wheels", ()), platform, python, virtual)
        if chosen is None and p.get("sdist") and (sdist is True or (sdist and p["name"] in sdist)):
            chosen = p["sdist"]
        if chosen is None:
            raise problem(
                f"{p['name']} {p['version']} has no wheel for {platform}",
                why=f"with Python {python} and {', '.join(f'{k} {v}' for k, v in virtual.items())}",
                do=f"ask for another version, or set `allow_sdist: [{p['name']}]`",
            )
        out.append(
            {
                "name": normalized(p["name"]),
                "version": p.get("version", "0"),
                "url": chosen.get("url") or Path(chosen["path"]).absolute().as_uri(),
                "sha256": chosen["hashes"]["sha256"],
                "size": chosen.get("size"),
                "depends": {},
            }
        )
    return out


def _unresolved(err: str, platform: str) -> Exception:
    text = re.sub(r"\x1b\[[0-9;]*m", "", err).strip()
    text = re.sub(r"^(error: |\s*[×╰─▶]+\s*)", "", text, flags=re.M)
    why = " ".join(line.strip(" │├╰─▶×") for line in text.splitlines() if line.strip())[:1200]
    if "error sending request" in why or "Failed to fetch" in why or "network was disabled" in why:
        return problem(
            "the index of Python packages cannot be reached", why=why, do="check the network, or lock elsewhere"
        )
    return problem(
        f"no set of Python packages answers the spec on {platform}", why=why, do="loosen one of the conditions named"
    )


def normalized(name: str) -> str:
    """A Python package's one name. Pure."""
    return re.sub(r"[-_.]+", "-", name).lower()


def best_wheel(wheels: Any, platform: str, python: str, virtual: dict[str, str]) -> dict[str, Any] | None:
    """The wheel an installer on that platform would prefer; None where none fits. Pure."""
    from packaging.tags import compatible_tags, cpython_tags, mac_platforms
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    major, minor = (int(x) for x in python.split(".")[:2])
    system, _, arch = platform.partition("-")
    arch = {"64": "x86_64"}.get(arch, arch)
    if system == "osx":
        version = (virtual.get("__osx", "14.0") + ".0").split(".")[:2]
        plats = list(mac_platforms((int(version[0]), int(version[1])), arch))
    elif system == "win":
        plats = ["win_amd64"]
    else:
        newest = int(virtual.get("__glibc", "2.28").split(".")[1])
        old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        plats = []
        for m in range(newest, 4, -1):
            plats.append(f"manylinux_2_{m}_{arch}")
            if m in old:
                plats.append(f"{old[m]}_{arch}")
        plats.append(f"linux_{arch}")
    tags = [
        *cpython_tags((major, minor), platforms=plats),
        *compatible_tags((major, minor), f"cp{major}{minor}", plats),
    ]
    rank = {t: i for i, t in reversed(list(enumerate(tags)))}
    best: tuple[int, dict[str, Any]] | None = None
    for wheel in wheels:
        name = wheel.get("name") or (wheel.get("url") or wheel["path"]).rsplit("/", 1)[1].partition("#")[0]
        try:
            fits = [rank[t] for t in parse_wheel_filename(name)[3] if t in rank]
        except InvalidWheelFilename:
            continue
        if fits and (best is None or min(fits) < best[0]):
            best = (min(fits), wheel)
    return best[1] if best else None


def find_python(version: str) -> str:
    """An interpreter of the host for a venv; `host` is the one Lab runs on. A problem where there is none."""
    if version == "host":
        return os.path.realpath(sys.executable)
    rc, out, _ = call("python", "find", "--system", "--no-python-downloads", version)
    if rc == 0 and out.strip():
        return out.strip().splitlines()[-1]
    rc, out, _ = call("python", "find", "--managed-python", "--no-python-downloads", version)
    if rc == 0 and out.strip():
        return out.strip().splitlines()[-1]
    raise problem(
        f"this host has no Python {version}",
        why="an env without channels uses an interpreter of the host",
        do=f"`uv python install {version}`, or give the env a conda channel that has it",
    )


def venv(prefix: Path, python: str) -> None:
    """An empty venv of a host interpreter at `prefix`, which may hold files already."""
    rc, _, err = call("venv", "--allow-existing", "--no-project", "-q", "--python", find_python(python), str(prefix))
    if rc:
        raise problem("the interpreter cannot be set up", why=err.strip()[-400:], do="check that this Python is whole")
    for name in ("activate", "activate.bat", "activate.csh", "activate.fish", "activate.nu", "activate.ps1",
                 "activate.xsh", "pydoc.bat", "activate_this.py", "deactivate.bat"):  # fmt: skip
        (prefix / "bin" / name).unlink(missing_ok=True)
    (prefix / ".gitignore").unlink(missing_ok=True)


def install(
    prefix: Path,
    packages: list[dict[str, Any]],
    *,
    cache: Path,
    offline: bool = False,
    reinstall: bool = False,
    check: Callable[[], None] = lambda: None,
) -> None:
    """The locked Python packages are in the prefix, each archive's hash checked."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.writelines(f"{asked(p)} --hash=sha256:{p['sha256']}\n" for p in packages)
        f.flush()
        again = ["--reinstall"] if reinstall else []
        rc, _, err = call("pip", "install", "-q", "--python", str(prefix / "bin" / "python"), "--no-deps",
                          "--require-hashes", "--break-system-packages", *again, "-r", f.name,
                          cache=cache, offline=offline, check=check)  # fmt: skip
    if rc:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", err).split())[-900:]
        if "ash mismatch" in text:
            raise problem("a Python package is not the one that was locked", why=text,
                          do="if the index really replaced it, lock again and review what moved")  # fmt: skip
        if "network was disabled" in text or "error sending request" in text or "Failed to fetch" in text:
            raise problem("a Python package cannot be fetched", why=text,
                          do="check the network; `lab bundle` where it is installed makes one for `lab rebuild`, "
                             "which needs none")  # fmt: skip
        raise problem("the Python packages cannot be installed", why=text, do="check the disk and the lock")


def asked(package: Mapping[str, Any]) -> str:
    """A locked package as a requirement: from its place, or, where only pinned, of its version. Pure."""
    return f"{package['name']} @ {package['url']}" if package["url"] else f"{package['name']}=={package['version']}"


def evict(cache: Path, names: list[str]) -> None:
    """uv's cache holds no copy of these packages, damaged or not."""
    if names:
        call("cache", "clean", "-q", *names, cache=cache)


def version() -> str:
    """uv's version."""
    rc, out, _ = call("--version")
    return out.split()[1] if rc == 0 and len(out.split()) > 1 else ""
