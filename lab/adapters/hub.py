"""Hugging Face's hub protocol, spoken by the hub itself, its mirrors and ModelScope: listing a repository's files.

API: `GET /api/models/ID/revision/REV`, `GET /api/models/ID/tree/COMMIT?recursive=true` (pages by `Link`),
`GET /ID/resolve/COMMIT/FILE`. Only files kept with LFS have a sha256 there; the others have git's SHA-1.
"""

from __future__ import annotations

import fnmatch
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.adapters import caches, http, modelscope, sources
from lab.adapters.answers import Entry, Lfs, told
from lab.adapters.download import Item
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import Fetch, Resolve

HOME = "https://huggingface.co"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PAGES = 2000
"""Most pages a list of files may have."""
OTHERS = (".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".mlmodel")
"""Weights in formats of other frameworks."""


def items(step: Fetch | Resolve, stage: Stage) -> tuple[list[Item], Mapping[str, Any]]:
    """The repository's files at its revision. Raises Refused or Problems."""
    source = step.source
    repository, revision = str(source["hub"]), str(source["revision"])
    sent = sources.headers(step, stage)
    base = endpoint(source)
    pinned = bool(step.files) and all(f.get("sha256") for f in step.files.values())
    if pinned:
        at = {n: str(f.get("url") or resolve_url(base, repository, revision, n)) for n, f in step.files.items()}
        return [_item(n, f, at[n], sources.own(at[n], base, sent)) for n, f in step.files.items()], {}
    local = getattr(step, "local", False) or (stage.offline and not http.loopback(base))
    if local or (isinstance(step, Fetch) and _complete(source)):
        return _cached(source)
    if modelscope.speaks(base):
        entries, learned = modelscope.listing(base, repository, revision, sent, stage.offline)
    else:
        entries, learned = _listing(base, repository, revision, sent, stage.offline)
    commit = str(learned["commit"])
    names = choose([str(e["path"]) for e in entries], source, getattr(step, "allow_pickle", False))
    found = [
        _item(str(e["path"]), e, str(e.get("url") or resolve_url(base, repository, commit, str(e["path"]))), sent)
        for e in entries
        if e["path"] in names
    ]
    return found, learned


def endpoint(source: Mapping[str, Any]) -> str:
    """The server a source is asked for at: declared, else HF_ENDPOINT, else Hugging Face. Reads the environment."""
    declared = str(source.get("endpoint") or os.environ.get("HF_ENDPOINT") or HOME)
    return (modelscope.HOME if declared == "modelscope" else declared).rstrip("/")


def resolve_url(base: str, repository: str, revision: str, name: str) -> str:
    """Where a file of a repository is fetched from. Pure."""
    if modelscope.speaks(base):
        return modelscope.file_url(base, repository, revision, name)
    return f"{base}/{repository}/resolve/{urllib.parse.quote(revision, safe='')}/{urllib.parse.quote(name)}"


def choose(names: Iterable[str], source: Mapping[str, Any], allow_pickle: bool = False) -> set[str]:
    """The files to take: by `include` and `exclude`, else all but weights that safetensors or GGUF make needless. Pure.

    A glob without a slash matches the file's name in any folder.
    """
    known = list(names)
    include, exclude = source.get("include") or (), source.get("exclude") or ()

    def matches(name: str, globs: Iterable[str]) -> bool:
        return any(fnmatch.fnmatchcase(name if "/" in g else name.rpartition("/")[2], g) for g in globs)

    chosen = {n for n in known if (not include or matches(n, include)) and not matches(n, exclude)}
    if not include and any(n.endswith((".safetensors", ".gguf")) for n in chosen):
        chosen = {
            n for n in chosen if not n.lower().endswith(OTHERS) and (allow_pickle or not n.lower().endswith(PICKLES))
        }
    return {n for n in chosen if n not in (".gitattributes", ".gitignore")}


def _item(name: str, entry: Mapping[str, Any], url: str, sent: Mapping[str, str]) -> Item:
    return Item(
        name,
        url=url,
        sha256=str(entry.get("sha256") or ""),
        oid=str(entry.get("oid") or "") if not entry.get("sha256") else "",
        size=entry.get("size"),
        headers=sent,
    )


def _listing(
    base: str, repository: str, revision: str, sent: Mapping[str, str], offline: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    at = f"{base}/api/models/{repository}"
    about, _ = http.json_(f"{at}/revision/{urllib.parse.quote(revision, safe='')}", sent, offline=offline)
    commit = str(about.get("sha") or "") if isinstance(about, dict) else ""
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        raise problem(f"{base} does not say which commit `{revision}` of {repository} is", do="check the endpoint")
    entries: list[dict[str, Any]] = []
    url, asked = f"{at}/tree/{commit}?recursive=true", set[str]()
    while url:
        if url in asked or len(asked) >= PAGES:
            raise problem(f"the list of {repository}'s files at {base} does not end", do="check the endpoint")
        asked.add(url)
        page, headers = http.json_(url, sources.own(url, base, sent), offline=offline)
        listed: list[Entry] = told(list[Entry], page, url)
        for entry in listed:
            if entry.type != "file":
                continue
            lfs = entry.lfs or Lfs()
            size = entry.size if lfs.size is None else lfs.size
            entries.append(
                {"path": entry.path, "size": size, "oid": entry.oid}
                | ({"sha256": lfs.oid.removeprefix("sha256:")} if lfs.oid else {})
            )
        more = re.search(r'<([^>]+)>;\s*rel="next"', headers.get("link", ""))
        url = urllib.parse.urljoin(url, more[1]) if more else ""
    learned: dict[str, Any] = {"commit": commit}
    card = about.get("cardData")
    license_ = card.get("license") if isinstance(card, dict) else None
    for name, value in (("license", license_), ("gated", about.get("gated"))):
        if value:
            many = ", ".join(map(str, value)) if isinstance(value, list) else True
            learned[name] = value if isinstance(value, str) else many
    return entries, learned


def _complete(source: Mapping[str, Any]) -> bool:
    """Whether the cache holds every file of a pinned commit that is asked for by name: nobody need be asked."""
    repository, commit, names = str(source["hub"]), str(source["revision"]), source.get("include") or ()
    snapshot = caches.huggingface() / caches.folder(repository) / "snapshots" / commit
    pinned = re.fullmatch("[0-9a-f]{40}", commit) and names and not any(set("*?[") & set(n) for n in names)
    return bool(pinned) and all((snapshot / n).is_file() for n in names)


def _cached(source: Mapping[str, Any]) -> tuple[list[Item], Mapping[str, Any]]:
    """The repository as Hugging Face's cache holds it; each file is linked to where it lies."""
    repository, revision = str(source["hub"]), str(source["revision"])
    own = caches.huggingface() / caches.folder(repository)
    commit = revision
    reference = own / "refs" / revision
    if reference.is_file():
        commit = reference.read_text().strip()
    snapshot = own / "snapshots" / commit
    if not snapshot.is_dir():
        raise problem(
            f"{repository} at {revision} is not on this machine",
            why=f"neither the store nor {own.parent} has it, and no server is asked",
            do="set `offline: false`, then `lab apply` to fetch it",
        )
    files = {f.relative_to(snapshot).as_posix(): f.resolve() for f in sorted(snapshot.rglob("*")) if f.is_file()}
    names = choose(files, source)
    found = [Item(n, path=str(f), link=True, size=f.stat().st_size) for n, f in files.items() if n in names]
    return found, {"commit": commit}


def snapshots(cache: Path) -> list[tuple[str, str, Path]]:
    """What a Hugging Face cache holds: repository, commit of its newest reference (or any), snapshot folder. Reads."""
    out = []
    for own in sorted(cache.glob("models--*")):
        repository = own.name.removeprefix("models--").replace("--", "/")
        for reference in [own / "refs/main", *sorted(own.glob("refs/*"))]:
            if reference.is_file() and (own / "snapshots" / reference.read_text().strip()).is_dir():
                out.append(
                    (repository, reference.read_text().strip(), own / "snapshots" / reference.read_text().strip())
                )
                break
        else:
            out += [(repository, s.name, s) for s in sorted((own / "snapshots").glob("*"))[:1]]
    return out
