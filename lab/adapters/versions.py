"""Versions: a dataset's manifests, numbered from 1; a new one only for new content.

VAULT/versions/N.json   what version N holds: files by hash, profile, source, checks that failed
VAULT/tags.json         tag → N
VAULT/data/             the view of one of them
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.adapters import store
from lab.adapters.files import put
from lab.core.facts import canonical
from lab.core.problem import did_you_mean, problem


def add(vault: Path, manifest: Mapping[str, Any]) -> int:
    """The number of the version with these files: the known one, else a new one."""
    folder = vault / "versions"
    folder.mkdir(parents=True, exist_ok=True)
    with open(vault / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = every(vault)
        for number, old in known.items():
            if old["files"] == manifest["files"]:
                return number
        number = max(known, default=0) + 1
        text = json.dumps({**manifest, "version": number}, indent=1, sort_keys=True, default=str)
        put(folder / f"{number}.json", text.encode())
        return number


def every(vault: Path) -> dict[int, dict[str, Any]]:
    """Every manifest by its number; a Problem where one is damaged. Reads."""
    found = {}
    for path in (vault / "versions").glob("*.json"):
        if path.stem.isdigit():
            try:
                found[int(path.stem)] = {**(told := json.loads(path.read_bytes())), "files": dict(told["files"])}
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as e:
                raise problem(
                    f"a version of dataset {vault.name} is damaged",
                    why=f"{path}: {e}",
                    do="bring it back with `lab restore`; or remove it, and its content is a new version when applied",
                ) from e
    return dict(sorted(found.items()))


def tags(vault: Path) -> dict[str, int]:
    """Tag → number. Reads."""
    try:
        return dict(json.loads((vault / "tags.json").read_text()))
    except (OSError, ValueError):
        return {}


def tag(vault: Path, name: str, number: int) -> None:
    """The tag names the version; raises Problems where there is no such version."""
    find(vault, str(number))
    if name.isdigit() or not name:
        raise problem(f"`{name}` is no tag", do="a tag is a word, not a number")
    put(vault / "tags.json", (json.dumps({**tags(vault), name: number}, indent=1, sort_keys=True) + "\n").encode())


def find(vault: Path, name: str) -> dict[str, Any]:
    """The manifest of a version by number, tag or `latest`; raises Problems. Reads."""
    known, named = every(vault), tags(vault)
    if not known:
        raise problem(f"dataset {vault.name} has no versions", do=f"run `lab apply --only dataset.{vault.name}`")
    if name in ("", "latest"):
        return known[max(known)]
    number = int(name) if name.isdigit() else named.get(name, 0)
    if number not in known:
        hint = did_you_mean(name, named)
        listed = ", ".join([*map(str, known), *named])
        raise problem(f"dataset {vault.name} has no version {name}{hint}", why=f"it has {listed}")
    return known[number]


def show(vault: Path, view: Path, number: int, digest: str, access: Mapping[str, Any]) -> None:
    """The view shows a version."""
    manifest = find(vault, str(number))
    told = manifest.get("profile") or {}
    files = dict(manifest["files"])
    provenance: dict[str, Any] = {
        "version": number,
        "digest": digest,
        "format": manifest["format"],
        "source": manifest["source"],
        "content": hashlib.sha256(canonical(files)).hexdigest(),
        "access": {str(k): list(v) for k, v in sorted(access.items())},
    }
    if "rows" in told:
        provenance |= {"rows": told["rows"], "columns": {n: c["type"] for n, c in told["columns"].items()}}
    if manifest.get("splits"):
        provenance["splits"] = manifest["splits"]
    store.view(vault, view, files, provenance)


def diff(vault: Path, a: str, b: str) -> dict[str, list[str]]:
    """What changed from one version to another: files added, removed, changed. Reads."""
    old, new = find(vault, a)["files"], find(vault, b)["files"]
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(n for n in old if n in new and old[n] != new[n]),
    }


def merge(vault: Path, a: str, b: str) -> int:
    """A version with the files of both; a file that both changed from their common start is a problem."""
    one, two = find(vault, a), find(vault, b)
    known = every(vault)
    start: Mapping[str, str] = known[1]["files"] if min(one["version"], two["version"]) > 1 else {}
    files: dict[str, str] = {}
    for name in sorted({*one["files"], *two["files"]}):
        left, right, base = one["files"].get(name), two["files"].get(name), start.get(name)
        if left == right or right == base:
            chosen = left
        elif left == base or left is None:
            chosen = right
        elif right is None:
            chosen = left
        else:
            raise problem(
                f"versions {one['version']} and {two['version']} cannot be merged",
                why=f"both changed {name}",
                do="make a version with the file as it shall be",
            )
        if chosen:
            files[name] = chosen
    source = {"merge": {f"version {v['version']}": "" for v in (one, two)}}
    made = {**two, "files": files, "source": source, "profile": {}, "splits": {}, "digest": ""}
    return add(vault, made)
