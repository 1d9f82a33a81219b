"""Channel: a small conda channel built from a `channel.yaml`, with the same bytes on every machine.

Packages are `.tar.bz2`, whose compressor never changed its output, with fixed times and owners; the index is written by
hand. A folder that has a `channel.yaml` can be named in `channels:` of an env like a channel.
"""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.core.problem import problem

EPOCH = 1_700_000_000
PLACEHOLDER = "/opt/" + "placehold_" * 25
SUBDIRS = ("noarch", "linux-64", "linux-aarch64", "osx-arm64", "osx-64", "win-64")
File = bytes | str | tuple[bytes, int]
"""Bytes; or bytes and mode; or, as text, the target of a link."""


def package(
    channel: Path,
    name: str,
    version: str,
    *,
    build: str = "0",
    number: int = 0,
    subdir: str = "noarch",
    depends: Iterable[str] = (),
    constrains: Iterable[str] = (),
    noarch: str = "generic",
    files: Mapping[str, File] | None = None,
    entry_points: Iterable[str] = (),
) -> Path:
    """A package in a channel's folder; files that contain PLACEHOLDER get their prefix written in when installed."""
    files = files or {}
    entries: list[tuple[str, File]] = list(files.items())
    paths = []
    for rel, content in sorted(files.items()):
        if isinstance(content, str):
            paths.append({"_path": rel, "path_type": "softlink"})
            continue
        data = content[0] if isinstance(content, tuple) else content
        path: dict[str, Any] = {"_path": rel, "path_type": "hardlink", "sha256": hashlib.sha256(data).hexdigest(),
                                "size_in_bytes": len(data)}  # fmt: skip
        if PLACEHOLDER.encode() in data:
            path |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "binary" if b"\0" in data else "text"}
        paths.append(path)
    platform, _, arch = subdir.partition("-")
    index: dict[str, Any] = {"name": name, "version": version, "build": build, "build_number": number, "subdir": subdir,
                             "depends": list(depends), "constrains": list(constrains), "license": "Apache-2.0",
                             "timestamp": EPOCH * 1000}  # fmt: skip
    index |= (
        {"noarch": noarch} if subdir == "noarch" else {"platform": platform, "arch": {"64": "x86_64"}.get(arch, arch)}
    )
    info: dict[str, Any] = {"info/index.json": index, "info/paths.json": {"paths": paths, "paths_version": 1}}
    if noarch == "python" and subdir == "noarch":
        points = {"type": "python", "entry_points": list(entry_points)}
        info["info/link.json"] = {"noarch": points, "package_metadata_version": 1}
    entries += [(k, json.dumps(v, indent=1, sort_keys=True).encode()) for k, v in info.items()]
    entries.append(("info/files", "".join(f"{f}\n" for f in sorted(files)).encode()))
    out = channel / subdir / f"{name}-{version}-{build}.tar.bz2"
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".lab-tmp")
    temporary.write_bytes(bz2.compress(_tar(entries), 9))
    os.replace(temporary, out)
    return out


def _tar(entries: list[tuple[str, File]]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(entries, key=lambda e: e[0]):
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = EPOCH, 0o644
            if isinstance(content, str):
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, content, 0o777
                tar.addfile(member)
                continue
            data, member.mode = content if isinstance(content, tuple) else (content, 0o644)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return raw.getvalue()


def index(channel: Path) -> None:
    """Every subdirectory's `repodata.json` lists exactly the archives that are there."""
    for subdir in SUBDIRS:
        folder = channel / subdir
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {}
        for archive in sorted(folder.glob("*.tar.bz2")):
            data = archive.read_bytes()
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:bz2") as tar:
                member = tar.extractfile("info/index.json")
                assert member is not None
                said = json.load(member)
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            found[archive.name] = {**said, "md5": md5, "size": len(data),
                                   "sha256": hashlib.sha256(data).hexdigest()}  # fmt: skip
        text = json.dumps(
            {"info": {"subdir": subdir}, "packages": found, "packages.conda": {}}, sort_keys=True, indent=1
        )
        path = folder / "repodata.json"
        if not path.exists() or path.read_text() != text:
            temporary = folder / ".repodata.lab-tmp"
            temporary.write_text(text)
            os.replace(temporary, path)


def build(folder: Path, target: Path) -> Path:
    """The channel that `folder/channel.yaml` describes stands in `target`; nothing is done where it already does."""
    import yaml

    source = (folder / "channel.yaml").read_bytes()
    mark, key = target / ".built", hashlib.sha256(source).hexdigest()
    if mark.exists() and mark.read_text() == key:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        said = yaml.load(source, yaml.BaseLoader) or {}  # nosec B506 # a safe loader
        for block in said["packages"]:
            _described(fresh, block)
        index(fresh)
        (fresh / ".built").write_text(key)
        if mark.exists() and mark.read_text() != key:
            shutil.rmtree(target)
        # Another process may have built the same meanwhile: its channel is as good.
        with contextlib.suppress(OSError):
            os.rename(fresh, target)
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as e:
        raise problem(
            f"{folder.name}/channel.yaml does not describe a channel",
            why=f"{type(e).__name__}: {e}",
            do="each package needs `name`, `version` and `files: {path: {text:, mode:}}`",
        ) from e
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _described(target: Path, block: Mapping[str, Any]) -> None:
    files: dict[str, File] = {}
    for rel, said in (block.get("files") or {}).items():
        text = str(said["text"]).replace("{{ prefix }}", PLACEHOLDER)
        files[rel] = (text.encode(), int(said.get("mode", "644"), 8))
    for subdir in block.get("subdirs") or ["noarch"]:
        package(
            target,
            str(block["name"]),
            str(block["version"]),
            subdir=subdir,
            depends=block.get("depends") or (),
            files=files,
        )


def shipped(relative: str) -> Path | None:
    """A folder of `recipes/` as it came with Lab, in its repository or its wheel; None where there is none. Reads."""
    home = Path(__file__).resolve().parents[1]
    found = (base / relative for base in (home / "_shipped", home.parent) if relative.startswith("recipes/"))
    return next((f for f in found if f.is_dir()), None)
