"""Exports: a lock in the formats of other tools. Pure; each takes a parsed conda-lock v1 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lab.adapters.uv import asked
from lab.core.problem import problem

Lock = Mapping[str, Any]


def packages(lock: Lock, platform: str, manager: str) -> list[dict[str, Any]]:
    """The packages of one platform that one manager installs, what is needed coming first. Pure."""
    return [p for p in lock["package"] if p["platform"] == platform and p["manager"] == manager]


def explicit(lock: Lock, platform: str) -> str:
    """`@EXPLICIT`: one URL with its MD5 a line, for `conda create --file`; Python packages as comments. Pure."""
    lines = [f"# platform: {platform}", "@EXPLICIT"]
    lines += [f"{p['url']}#{p['hash']['md5']}" for p in packages(lock, platform, "conda")]
    for p in packages(lock, platform, "pip"):
        lines.append(f"# pip {asked(p)} --hash=sha256:{p['hash']['sha256']}")
    return "\n".join(lines) + "\n"


def environment(lock: Lock, platform: str, name: str = "") -> str:
    """`environment.yml` with every package pinned, for conda, mamba and micromamba. Pure."""
    lines = [f"name: {name}"] if name else []
    lines += ["channels:", *(f"  - {c['url']}" for c in lock["metadata"]["channels"]), "dependencies:"]
    for p in packages(lock, platform, "conda"):
        build = p["url"].rpartition("/")[2].removesuffix(".conda").removesuffix(".tar.bz2").rpartition("-")[2]
        lines.append(f"  - {p['name']}={p['version']}={build}")
    pip = packages(lock, platform, "pip")
    if pip:
        lines += ["  - pip", "  - pip:", *(f"      - {p['name']}=={p['version']}" for p in pip)]
    return "\n".join(lines) + "\n"


def requirements(lock: Lock, platform: str) -> str:
    """`requirements.txt` of the Python packages with hashes, for `pip install --require-hashes --no-deps -r`. Pure."""
    return "".join(f"{asked(p)} --hash=sha256:{p['hash']['sha256']}\n" for p in packages(lock, platform, "pip"))


def pylock(lock: Lock, platform: str) -> str:
    """`pylock.toml` (PEP 751) of the Python packages of one platform. Pure."""
    lines = ['lock-version = "1.0"', 'created-by = "lab"']
    for p in packages(lock, platform, "pip"):
        if not p["url"]:
            raise problem(
                "a pylock.toml says where each archive lies, and this lock holds pins only",
                do="export requirements, or set `lock: full` and lock again",
            )
        archive = p["url"].rpartition("/")[2].partition("#")[0]
        lines += ["", "[[packages]]", f'name = "{p["name"]}"', f'version = "{p["version"]}"']
        body = f'{{ url = "{p["url"]}", hashes = {{ sha256 = "{p["hash"]["sha256"]}" }} }}'
        lines.append(f"wheels = [{body}]" if archive.endswith(".whl") else f"sdist = {body}")
    return "\n".join(lines) + "\n"


def pixi(lock: Lock, name: str, virtual: Mapping[str, Mapping[str, str]]) -> str:
    """A `pixi.toml` whose every package is pinned, by platform where they differ; pixi would assume an older system.

    `virtual` is what each platform was taken to offer when it was locked. Pure.
    """
    platforms = list(lock["metadata"]["platforms"])
    channels = ", ".join(f'"{c["url"]}"' for c in lock["metadata"]["channels"])
    quoted = ", ".join(f'"{p}"' for p in platforms)
    lines = ["[workspace]", f'name = "{name}"', f"channels = [{channels}]", f"platforms = [{quoted}]"]
    offered = {k: v for of in virtual.values() for k, v in of.items() if k in SYSTEM}
    if offered:
        lines += ["", "[system-requirements]", *(SYSTEM[k].format(v) for k, v in sorted(offered.items()))]
    for manager, table in (("conda", "dependencies"), ("pip", "pypi-dependencies")):
        pins = {p: {x["name"]: x["version"] for x in packages(lock, p, manager)} for p in platforms}
        everywhere = {n: v for n, v in pins[platforms[0]].items() if all(pins[p].get(n) == v for p in platforms)}
        for where, of in ((None, everywhere), *pins.items()):
            mine = {n: v for n, v in of.items() if where is None or n not in everywhere}
            if mine:
                lines += ["", f"[target.{where}.{table}]" if where else f"[{table}]"]
                lines += [f'"{n}" = "=={v}"' for n, v in sorted(mine.items())]
    return "\n".join(lines) + "\n"


SYSTEM = {
    "__cuda": 'cuda = "{}"',
    "__glibc": 'libc = {{ family = "glibc", version = "{}" }}',
    "__linux": 'linux = "{}"',
    "__osx": 'macos = "{}"',
}
"""Virtual package → what pixi calls it; each counts on its own platforms only."""
OF_PLATFORM: Mapping[str, Callable[[Lock, str], str]] = {
    "explicit": explicit,
    "environment.yml": environment,
    "requirements": requirements,
    "pylock": pylock,
}
FORMATS = ("conda-lock", *OF_PLATFORM, "pixi")
