"""Sources: what files a model consists of, by what its declaration says; each protocol is a module of its own."""

from __future__ import annotations

import importlib
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.adapters import caches, http
from lab.adapters.download import Item
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import Fetch, Resolve

LISTERS = {
    "hub": "lab.adapters.hub",
    "ollama": "lab.adapters.ollama",
    "release": "lab.adapters.release",
    "git": "lab.adapters.gitsource",
}


def items(step: Fetch | Resolve, stage: Stage) -> tuple[list[Item], Mapping[str, Any]]:
    """The files of the model and what else the source says of it (`license`, `commit`, …). Raises Problems."""
    source = step.source
    if "path" in source:
        return _local(Path(source["path"]), str(source.get("place", "auto")), stage, step.files), {}
    if "url" in source or "urls" in source:
        sent, declared = headers(step, stage), source.get("urls") or {}
        return [
            # A lock may name another address than the declaration: it is told no token.
            _url(name, f, own(str(f.get("url")), str(declared.get(name) or source.get("url") or ""), sent))
            for name, f in step.files.items()
        ], {}
    kind = next((k for k in LISTERS if k in source), None)
    if kind is None:
        raise problem(f"{stage.address} has no source", do="declare one of path, url, hub, ollama, git, release")
    try:
        found, learned = importlib.import_module(LISTERS[kind]).items(step, stage)
    except http.Refused as e:
        raise refused(e, step) from e
    return found, learned


def headers(step: Fetch | Resolve, stage: Stage) -> dict[str, str]:
    """The bearer token, where one is declared."""
    return {"Authorization": f"Bearer {stage.secret(step.token)}"} if step.token else {}


def own(url: str, base: str, sent: Mapping[str, str]) -> Mapping[str, str]:
    """The token, where the URL is the source's own server. Pure."""
    return sent if http.same(url, base) else {}


def _url(name: str, file: Mapping[str, Any], sent: Mapping[str, str]) -> Item:
    url = str(file["url"])
    known: dict[str, Any] = {"sha256": str(file.get("sha256") or ""), "size": file.get("size")}
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = urllib.parse.unquote(parts.path)
        if not Path(path).is_file():
            raise problem(f"{path} is not there", why=f"{url} names it", do="mount its volume, or name another file")
        return Item(name, path=path, **{**known, "size": Path(path).stat().st_size})
    return Item(name, url=url, headers=sent, **known)


def _local(path: Path, place: str, stage: Stage, known: Mapping[str, Any]) -> list[Item]:
    """The files of a folder, or the one file; hidden ones left out."""
    if not path.exists():
        raise problem(
            f"{path} is not there", why=f"{stage.address} names it", do="mount its volume, or correct `path:`"
        )
    link = place == "link" or (place == "auto" and caches.foreign(path))
    if path.is_file():
        found = {path.name: path}
    else:
        found = {
            f.relative_to(path).as_posix(): f
            for f in sorted(path.rglob("*"))
            if f.is_file() and not any(p.startswith(".") for p in f.relative_to(path).parts)
        }
    return [
        Item(
            name,
            path=str(f.resolve() if link else f),
            link=link,
            size=f.stat().st_size,
            sha256=str((known.get(name) or {}).get("sha256") or ""),
        )
        for name, f in found.items()
    ]


def refused(e: http.Refused, step: Fetch | Resolve) -> Exception:
    """What a server's final no means to a user."""
    where = http.shown(e.url)
    hub = str(step.source.get("hub", ""))
    page = f"{str(step.source.get('endpoint') or '').rstrip('/') or 'https://huggingface.co'}/{hub}"
    found = {k.lower(): v for k, v in e.headers.items()}
    if e.code in (401, 403):
        if hub:
            return problem(
                f"{hub} is not open to everyone",
                why=found.get("x-error-message") or f"the hub answers {e.code}: the licence is to be accepted first",
                do=f"accept it at {page}, then declare `token: env:HF_TOKEN`"
                + ("" if not step.token else " of the account that accepted it"),
            )
        return problem(
            f"{where} is not open to everyone",
            why=f"the server answers {e.code}",
            do="declare `token:` as a reference, for example `token: env:TOKEN`",
        )
    if e.code in (404, 410):
        return problem(f"{where} is not there", why=f"the server answers {e.code}", do="check the name and revision")
    why = "the server redirects in a circle" if 300 <= e.code < 400 else f"the server answers {e.code}"
    return problem(f"{where} cannot be fetched", why=why, do="check the address")
