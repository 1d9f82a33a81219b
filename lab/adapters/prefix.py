"""Prefix: what is in an environment's folder, whose it is, and whether it still is what was installed.

It reads only, save that what a deep look finds damaged is remembered, so that the next plan need not look as deep.
Beside the packages, `PREFIX/.lab/` holds `stamp.json` (what was installed: small), `dirs.json` (every folder's mtime)
and `files.json` (every file's size, mtime, inode, hash, owner and mode). They are written last: a prefix without a
stamp was never finished. `damaged.json` names what was found damaged.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = ".lab"
SHOWN = 20
"""How many damaged files are named; the rest are counted."""
TOLD = ("spec", "lock", "content_digest", "platform", "python", "bytes")
"""What of a stamp is told to the plan."""
_ASIDE = {"__pycache__", OURS}
_PART = 1 << 18
"""Bytes read at once: most files, whole."""
_VOLATILE = ("/RECORD", "/direct_url.json", "/uv_cache.json", "/REQUESTED", "/INSTALLER")


@dataclass(frozen=True, slots=True)
class Owned:
    """A file's owner, `conda:NAME VERSION` or `pip:NAME VERSION`; its hash on disk where known; and the portable one.

    That one is equal in every prefix: the hash before prefixes were written in, or `generated`.
    """

    owner: str
    sha256: str = ""
    portable: str = ""


def observe(link: str, depth: int = 0) -> dict[str, Any] | None:
    """The facts of the env behind a link: `{prefix, lock, content_digest, state, …}`; None where nothing is there.

    Depth 0 looks at folders, 1 at every file's stat, 2 at every byte. `state` is `intact`, or says what is wrong in
    figures; `files` then names each file with its package.
    """
    prefix = os.path.realpath(link)
    stamp = read_stamp(prefix)
    if stamp is None:
        return None if not os.path.isdir(prefix) else {"prefix": prefix, "state": "not finished"}
    facts: dict[str, Any] = {k: stamp[k] for k in TOLD if stamp.get(k)}
    facts["prefix"] = prefix
    if stamp.get("variables"):
        facts["variables"] = stamp["variables"]
    damaged = damage(prefix, depth)
    facts["state"] = summary(damaged)
    facts["files"] = {rel: damaged[rel] for rel in sorted(damaged)[:SHOWN]}
    if len(damaged) > SHOWN:
        facts["files"]["…"] = f"and {len(damaged) - SHOWN} more"
    return facts


def summary(damaged: dict[str, str]) -> str:
    """`intact`, or `2 edited, 1 foreign`. Pure."""
    counts: dict[str, int] = {}
    for what in damaged.values():
        word = what.partition(" ")[0].rstrip(",")
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{n} {word}" for word, n in sorted(counts.items())) or "intact"


def read_stamp(prefix: str) -> dict[str, Any] | None:
    """The stamp of a finished prefix; None where there is none. Reads."""
    found: dict[str, Any] | None = _load(prefix, "stamp.json")
    return found


def damage(prefix: str, depth: int = 0) -> dict[str, str]:
    """What is not as installed: path → `edited (conda:numpy 1.26)`, `deleted (…)`, `foreign`.

    What an earlier look found is looked at again, at any depth; what this one finds is remembered, if it is a deep one.
    """
    found = _damage(prefix, depth)
    known: list[str] = _load(prefix, "damaged.json") or []
    if more := [rel for rel in known if rel not in found]:
        found |= _judged(prefix, more, _load(prefix, "files.json") or {})
    if depth and sorted(found) != known:
        _remember(os.path.join(prefix, OURS, "damaged.json"), sorted(found))
    return found


def _remember(path: str, names: list[str]) -> None:
    # Whoever may only read sees the damage all the same.
    with contextlib.suppress(OSError):
        if not names:
            os.unlink(path)
            return
        with open(f"{path}.lab-tmp", "w") as f:
            f.write(json.dumps(names))
        os.replace(f"{path}.lab-tmp", path)


def _damage(prefix: str, depth: int) -> dict[str, str]:
    folders = _load(prefix, "dirs.json")
    if not isinstance(folders, dict):
        return {f"{OURS}/dirs.json": "deleted"}
    if depth == 0:
        changed = [d for d, mtime in folders.items() if _mtime(os.path.join(prefix, d)) != mtime]
        if not changed:
            return {}
    files: dict[str, list[Any]] | None = _load(prefix, "files.json")
    if not isinstance(files, dict) or not files:
        return {f"{OURS}/files.json": "deleted"}
    if depth == 0:
        return _names_differ(prefix, folders, changed, files)
    now = dict(walk(prefix))
    out = {rel: f"deleted ({known[4]})" for rel, known in files.items() if rel not in now}
    out |= {rel: f"foreign{_of_package(rel)}" for rel in now if rel not in files}
    suspects = [rel for rel, known in files.items() if rel in now and (depth >= 2 or _changed(now[rel], known))]
    return out | _differing(prefix, {rel: now[rel] for rel in suspects}, files)


def _judged(prefix: str, names: list[str], files: dict[str, list[Any]]) -> dict[str, str]:
    """What is wrong with these paths, each looked at to the byte. Reads."""
    out, there = {}, {}
    for rel in names:
        try:
            there[rel] = os.lstat(os.path.join(prefix, rel))
        except OSError:
            if rel in files:
                out[rel] = f"deleted ({files[rel][4]})"
    out |= {rel: f"foreign{_of_package(rel)}" for rel in there if rel not in files and not rel.startswith(OURS)}
    return out | _differing(prefix, {rel: s for rel, s in there.items() if rel in files}, files)


def _differing(prefix: str, there: dict[str, os.stat_result], files: dict[str, list[Any]]) -> dict[str, str]:
    """Which of these files have another content or mode than was installed. Reads."""
    out = {}
    hashes = hash_all(prefix, list(there))
    for rel, s in there.items():
        if hashes[rel] != files[rel][3]:
            shared = ", shared with other envs by a hardlink" if s.st_nlink > 1 else ""
            out[rel] = f"edited ({files[rel][4]}{shared})"
        elif stat.S_IMODE(s.st_mode) != files[rel][5]:
            out[rel] = f"mode-changed ({files[rel][4]})"
    return out


def _names_differ(
    prefix: str, folders: Mapping[str, int], changed: list[str], files: dict[str, list[Any]]
) -> dict[str, str]:
    out: dict[str, str] = {}
    gone = {d for d in changed if not os.path.isdir(os.path.join(prefix, d))}
    known: dict[str, set[str]] = {d: set() for d in changed}
    for rel, entry in files.items():
        parent, _, name = rel.rpartition("/")
        if parent in gone:
            out[rel] = f"deleted ({entry[4]})"
        elif parent in known:
            known[parent].add(name)
    for folder in known.keys() - gone:
        lead = f"{folder}/" if folder else ""
        now: set[str] = set()
        with os.scandir(os.path.join(prefix, folder)) as entries:
            for e in entries:
                if e.name in _ASIDE:
                    continue
                if not e.is_dir(follow_symlinks=False):
                    now.add(e.name)
                elif f"{lead}{e.name}" not in folders:
                    sub = f"{lead}{e.name}"
                    out |= {f"{sub}/{r}": f"foreign{_of_package(sub)}" for r, _ in walk(os.path.join(prefix, sub))}
        out |= {f"{lead}{n}": f"deleted ({files[f'{lead}{n}'][4]})" for n in known[folder] - now}
        out |= {f"{lead}{n}": f"foreign{_of_package(lead + n)}" for n in now - known[folder]}
    return out


def _of_package(rel: str) -> str:
    parts = rel.split("/")
    if "site-packages" in parts and len(parts) > (at := parts.index("site-packages") + 1):
        return f" ({parts[at].partition('-')[0].removesuffix('.py')})"
    return ""


def _mtime(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return -1


def _fingerprint(s: os.stat_result) -> list[int]:
    return [s.st_size, s.st_mtime_ns, s.st_ino]


def _changed(s: os.stat_result, known: list[Any]) -> bool:
    return _fingerprint(s) != known[:3] or stat.S_IMODE(s.st_mode) != known[5]


def walk(prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every file and link below a prefix with its stat, bytecode and our own folder left out. Reads."""
    stack = [""]
    while stack:
        folder = stack.pop()
        with os.scandir(os.path.join(prefix, folder)) as entries:
            for e in entries:
                if e.name in _ASIDE:
                    continue
                rel = f"{folder}/{e.name}" if folder else e.name
                if e.is_dir(follow_symlinks=False):
                    stack.append(rel)
                else:
                    yield rel, e.stat(follow_symlinks=False)


def folders(prefix: str) -> dict[str, int]:
    """Every folder below a prefix with its mtime in ns, the prefix itself as the empty name. Reads."""
    out, stack = {}, [""]
    while stack:
        folder = stack.pop()
        out[folder] = _mtime(os.path.join(prefix, folder))
        with os.scandir(os.path.join(prefix, folder)) as entries:
            stack += [
                f"{folder}/{e.name}" if folder else e.name
                for e in entries
                if e.name not in _ASIDE and e.is_dir(follow_symlinks=False)
            ]
    return out


def hash_all(prefix: str, names: list[str]) -> dict[str, str]:
    """SHA-256 of each named file, of a link its target; empty where it cannot be read. Reads."""
    if len(names) < 64:
        return {n: hash_one(os.path.join(prefix, n)) for n in names}
    # In parts: handing threads one small file at a time costs more than hashing it.
    parts = [names[i : i + 64] for i in range(0, len(names), 64)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        found = threads.map(lambda part: [hash_one(os.path.join(prefix, n)) for n in part], parts)
        return {n: h for part, hashes in zip(parts, found, strict=True) for n, h in zip(part, hashes, strict=True)}


def hash_one(path: str) -> str:
    """Hex SHA-256 of a file; of a link, `link:` and where it points; empty where it cannot be read. Reads."""
    found = hashlib.sha256()
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            while part := os.read(file, _PART):
                found.update(part)
        finally:
            os.close(file)
        return found.hexdigest()
    except OSError:
        try:
            return f"link:{os.readlink(path)}"
        except OSError:
            return ""


def owners(prefix: str) -> dict[str, Owned]:
    """Path → owner, as `conda-meta/` and each wheel's RECORD say. Reads."""
    own: dict[str, Owned] = {}
    root = Path(prefix)
    for record in (root / "conda-meta").glob("*-*-*.json"):
        said = json.loads(record.read_bytes())
        owner = f"conda:{said['name']} {said['version']}"
        own[f"conda-meta/{record.name}"] = Owned(owner, portable="generated")
        for p in said["paths_data"]["paths"]:
            if p["path_type"] == "hardlink":
                plain = p.get("sha256") or ""
                own[p["_path"]] = Owned(owner, p.get("sha256_in_prefix") or plain, plain)
            elif p["path_type"] == "softlink":
                own[p["_path"]] = Owned(owner, portable="link")
            else:
                own[p["_path"]] = Owned(owner, portable="generated")
    for listing in root.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        installer = listing.parent / "INSTALLER"
        if not installer.exists() or installer.read_text().strip() == "conda":
            continue
        name, _, version = listing.parent.name.removesuffix(".dist-info").rpartition("-")
        owner = f"pip:{name} {version}"
        with listing.open(newline="") as f:
            for row in csv.reader(f):
                rel = os.path.relpath(os.path.join(listing.parent.parent, row[0]), prefix)
                plain = _record_hash(row[1])
                generated = rel.startswith("bin/") or rel.endswith(_VOLATILE) or not plain
                own[rel] = Owned(owner, plain, "generated" if generated else plain)
    return own


def _record_hash(text: str) -> str:
    kind, _, value = text.partition("=")
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex() if kind == "sha256" else ""


def _load(prefix: str, name: str) -> Any:
    try:
        with open(os.path.join(prefix, OURS, name), "rb") as f:
            return json.loads(f.read())
    except (OSError, ValueError):
        return None


def survey(prefix: str) -> tuple[dict[str, list[Any]], dict[str, str], str]:
    """What is there now: files for `files.json`, what differs from the packages' own records, the content digest.

    The content digest covers every file of every package by its portable hash, so it is equal in every prefix and on
    every machine of a platform. Reads.
    """
    own = owners(prefix)
    found = dict(walk(prefix))
    hashes = hash_all(prefix, list(found))
    wrong: dict[str, str] = {}
    files: dict[str, list[Any]] = {}
    lines = []
    for rel, s in found.items():
        owned = own.get(rel)
        files[rel] = [*_fingerprint(s), hashes[rel], owned.owner if owned else "lab", stat.S_IMODE(s.st_mode)]
        if owned is None or rel.endswith("/uv_cache.json"):  # uv's note that an archive was a file of this machine
            continue
        if owned.sha256 and hashes[rel] != owned.sha256 and not rel.endswith(_VOLATILE):
            wrong[rel] = f"edited ({owned.owner})"
        value = owned.portable
        if value == "link" or hashes[rel].startswith("link:"):
            value = hashes[rel].replace(prefix, "@")
        lines.append(f"{_anywhere(rel)}\0{owned.owner}\0{value}\n")
    for rel, owned in own.items():
        if rel not in found and "__pycache__" not in rel and not os.path.lexists(os.path.join(prefix, rel)):
            wrong[rel] = f"deleted ({owned.owner})"
    content = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    return files, wrong, content


def _anywhere(rel: str) -> str:
    # A host's interpreter may be any Python 3: its version is no content of the packages.
    parts = rel.split("/")
    return "/".join(["lib", "python", *parts[2:]]) if parts[0] == "lib" and parts[1].startswith("python3.") else rel
