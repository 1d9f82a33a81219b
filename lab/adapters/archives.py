"""Archives: package files of environments by their hash, from which a lock is installed without asking a server."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lab.adapters import download, http, store
from lab.core.problem import problem


@dataclass(frozen=True, slots=True)
class Archive:
    """One package file that a lock names."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its place among the archives: hash, folder and file name, as installers read them from a URL."""
        parts = [part for part in unquote(urlsplit(self.url).path).split("/") if part][-2:]
        if not re.fullmatch("[0-9a-f]{64}", self.sha256) or not parts or {".", ".."} & set(parts):
            raise problem(f"the lock names an archive {'/'.join(parts)!r} that can be none", do="lock it again")
        return f"{self.sha256}/{'/'.join(parts)}"


def folder(state: Path) -> Path:
    """Where a lab keeps archives."""
    return state / "cache" / "archives"


def find(state: Path, url: str, sha256: str) -> str:
    """The URL of the archive on this machine; the given one where it is not here. A pin has none."""
    if not (url and sha256):
        return url
    here = folder(state) / Archive(url, sha256).name
    return here.as_uri() if here.is_file() else url


def localized(state: Path, text: str) -> str:
    """The text of a lock file, with the archives that are on this machine in place of their URLs."""
    if not folder(state).is_dir():
        return text
    for one in _packages(text):
        url, sha256 = str(one["url"]), str((one.get("hash") or {}).get("sha256") or "")
        if (here := find(state, url, sha256)) != url:
            text = text.replace(f"url: {url}\n", f"url: {here}\n")
    return text


def locked(text: str, platform: str) -> Iterator[Archive]:
    """What a lock file names for a platform and is neither made from the repository nor lies in it."""
    for one in _packages(text):
        url = str(one["url"])
        if one["platform"] == platform and not url.startswith(("file://$LAB_", "file://${LAB_")):
            sha256 = str((one.get("hash") or {}).get("sha256") or "")
            if not sha256:
                raise problem(f"the lock holds no sha256 of {one['name']}", do="lock it again, then bundle")
            yield Archive(url, sha256)


def _packages(text: str) -> list[dict[str, Any]]:
    import yaml

    found: list[dict[str, Any]] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["package"]  # nosec B506 # a safe loader
    return found


def obtain(state: Path, one: Archive, check: Callable[[], None], moved: Callable[[int], None]) -> Path:
    """The archive is among this lab's, its hash verified; fetched where it is not yet."""
    target = folder(state) / one.name
    if target.is_file() and store.digest(target) == one.sha256:
        return target
    root = folder(state)
    if one.url.startswith("file:"):
        sha256 = store.copy(root, Path(unquote(urlsplit(one.url).path)), one.sha256)
    else:
        item = download.Item(target.name, one.url, sha256=one.sha256)
        try:
            sha256 = download.download(item, root, download.Net(), check, moved)
        except http.Refused as e:
            raise problem(
                f"{http.shown(one.url)} cannot be fetched", why=f"the server says {e.code}", do="lock again"
            ) from e
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(store.path(root, sha256), target)
    with contextlib.suppress(OSError):
        store.path(root, sha256).parent.rmdir()
    return target
