"""Artifact: files, folders and references under one name and type, with a manifest that says what each of them is.

    made = lab.Artifact("corpus", type="dataset")
    made.add_file("train.jsonl")
    made.add_dir("images")
    made.add_reference("s3://bucket/raw.parquet", etag="9b2c…")
    lab.log_artifact(made)

The manifest lies beside its files, `artifacts/NAME.artifact.json`; its digest is of type, names and contents alone, so
that the same content has the same digest in every run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TYPES = ("dataset", "model", "result", "custom")


class Artifact:
    """What is to be logged; nothing is copied before `log_artifact`."""

    def __init__(self, name: str, type: str = "custom", metadata: Mapping[str, Any] | None = None) -> None:
        if type not in TYPES:
            raise ValueError(f"{type!r} is no type of artifact: take one of {', '.join(TYPES)}")
        self.name, self.type = name, type
        self.metadata = dict(metadata or {})
        self._files: dict[str, Path] = {}
        self._references: dict[str, dict[str, str]] = {}

    def add_file(self, path: str | os.PathLike[str], name: str = "") -> None:
        """A file, by its own name unless another is given."""
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"{source} is no file")
        self._files[_inside(name or source.name)] = source

    def add_dir(self, path: str | os.PathLike[str], name: str = "") -> None:
        """A folder with all below it, by its own name unless another is given."""
        source = Path(path)
        if not source.is_dir():
            raise NotADirectoryError(f"{source} is no folder")
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            self._files[_inside(f"{name or source.name}/{file.relative_to(source).as_posix()}")] = file

    def add_reference(self, uri: str, etag: str | None = None, name: str = "") -> None:
        """What lies elsewhere and stays there: its address and ETag, asked for by HTTP where none is given.

        Raises OSError where the server does not answer.
        """
        import urllib.parse
        import urllib.request

        parts = urllib.parse.urlsplit(uri)
        if not parts.scheme:
            raise ValueError(f"{uri!r} is no address: write s3://…, https://…, file:///…")
        if etag is None and parts.scheme in ("http", "https"):
            with urllib.request.urlopen(urllib.request.Request(uri, method="HEAD"), timeout=30) as answer:  # nosec B310 # http(s) only
                etag = (answer.headers.get("ETag") or "").strip('"')
        self._references[_inside(name or Path(parts.path).name or parts.netloc)] = {"uri": uri, "etag": etag or ""}

    def write(self, base: Path) -> dict[str, Any]:
        """The files are copies below `base/NAME`, the manifest is `base/NAME.artifact.json`; returns it."""
        entries: dict[str, dict[str, Any]] = {n: dict(r) for n, r in self._references.items()}
        for name, source in self._files.items():
            target = base / self.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            with open(target, "rb") as f:
                sha256 = hashlib.file_digest(f, "sha256").hexdigest()
            entries[name] = {"sha256": sha256, "bytes": target.stat().st_size}
        entries = dict(sorted(entries.items()))
        digest = hashlib.sha256(json.dumps([self.type, entries], sort_keys=True).encode()).hexdigest()
        manifest = {"name": self.name, "type": self.type, "digest": digest, "metadata": self.metadata, "files": entries}
        (base / f"{self.name}.artifact.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        return manifest


def _inside(name: str) -> str:
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        raise ValueError(f"{name!r} would lie outside the artifact")
    return name
