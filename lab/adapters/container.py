"""Containerfile: an image that holds what an env's lock holds. Written for Podman, Docker and Buildah alike."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.adapters import envexport
from lab.adapters.files import put

MARK = "# lock: "
BASE = "docker.io/mambaorg/micromamba:2.0.5"
PYTHON = "docker.io/library/python:{version}-slim"
_PLACES = {"$LAB_ROOT": (".", "/lab"), "$LAB_CHANNELS": ("./state/cache/channels", "/lab-channels")}
"""Where a lock has a channel of the repository → where it is when an image is built, and in the image."""


def text(name: str, lock: envexport.Lock, summary: dict[str, Any], platform: str) -> str:
    """The Containerfile of an env on a linux platform; its first line names the lock it is made from. Pure."""
    channels = [c["url"] for c in lock["metadata"]["channels"]]
    outside = "".join(f"-v {u[7:]}:{u[7:]}:ro " for u in channels if u.startswith("file:///"))
    lines = [
        f"{MARK}{summary['platforms'][platform]['digest']}",
        f"# Made by Lab from the lock of env.{name} ({platform}); build it at the repository's root:",
        f"#   podman build --platform {_oci(platform)} {outside}-f THIS_FILE -t env-{name} .",
    ]
    conda = [_inside(line) for line in envexport.explicit(lock, platform).splitlines()]
    pip = envexport.requirements(lock, platform).splitlines()
    if any(line and not line.startswith(("#", "@")) for line in conda):
        lines += [f"FROM {BASE}", *_copied(channels)]
        lines += _written("/tmp/explicit.txt", [x for x in conda if not x.startswith("#")])  # nosec B108 # in the image
        lines.append("RUN micromamba install -y -n base -f /tmp/explicit.txt && micromamba clean -ay")
        installer = "/opt/conda/bin/python -m pip"
        path = "/opt/conda/bin"
    else:
        version = summary.get("python") or "3.12"
        lines.append(f"FROM {PYTHON.format(version='3.11' if version == 'host' else version)}")
        installer, path = "python -m pip", "/usr/local/bin"
    if pip:
        lines += _written("/tmp/requirements.txt", pip)  # nosec B108 # in the image
        lines.append(f"RUN {installer} install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.txt")
    lines += ["ENV PYTHONNOUSERSITE=1", f"ENV PATH={path}:$PATH"]
    return "\n".join(lines) + "\n"


def _written(path: str, lines: list[str]) -> list[str]:
    """The lines that write a file of these lines: not as a here-document, which older Buildah and Podman lack. Pure."""
    return ["RUN printf '%s\\n' \\", *(f"    {shlex.quote(line)} \\" for line in lines), f"    > {path}"]


def _inside(text: str) -> str:
    """A URL of a channel of the repository, as it is read in the image. Pure."""
    for place, (_, there) in _PLACES.items():
        text = text.replace(place, there)
    return text


def _copied(channels: list[str]) -> list[str]:
    """The lines that bring the channels of the repository into the image. Pure."""
    found = [(url.partition(place), *of) for url in channels for place, of in _PLACES.items() if place in url]
    return [f"COPY {here}{rest} {there}{rest}" for (_, _, rest), here, there in found]


def _oci(platform: str) -> str:
    return {"linux-64": "linux/amd64", "linux-aarch64": "linux/arm64"}.get(platform, "linux/amd64")


def write(path: Path, name: str, lock: envexport.Lock, summary: dict[str, Any], platform: str) -> None:
    """The Containerfile is in place; on a Mac it is made for linux, where containers run."""
    on = platform if platform.startswith("linux") else next(p for p in summary["platforms"] if p.startswith("linux"))
    put(path, text(name, lock, summary, on).encode())
