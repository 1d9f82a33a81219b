"""Models kept in git: one commit is fetched, and what LFS keeps elsewhere is downloaded from there.

LFS batch API: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.adapters import http, hub
from lab.adapters.answers import Download, told
from lab.adapters.download import Item
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import Fetch, Resolve

POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")


def items(step: Fetch | Resolve, stage: Stage) -> tuple[list[Item], Mapping[str, Any]]:
    """The files of one commit. Raises Problems."""
    url, revision = str(step.source["git"]), str(step.source["revision"])
    local = urllib.parse.urlsplit(url).scheme in ("", "file")
    if not local and urllib.parse.urlsplit(url).scheme in ("http", "https"):
        http.allow(url, stage.offline)
    elif not local and stage.offline:
        raise problem(f"offline: {url} is not asked", do="set `offline: false`")
    token = stage.secret(step.token) if step.token else ""
    for left in stage.scratch.glob("git-*"):
        shutil.rmtree(left, ignore_errors=True)
    # A folder of its own: a git that outlived a killed apply keeps its locks, and may be at work yet.
    tree = Path(tempfile.mkdtemp(prefix="git-", dir=stage.scratch))
    _git("init", "-q", str(tree))
    _git("-C", str(tree), "fetch", "-q", "--depth", "1", "--", url, revision, sent=_sent(url, token))
    commit = _git("-C", str(tree), "rev-parse", "FETCH_HEAD").strip()
    _git("-C", str(tree), "-c", "advice.detachedHead=false", "checkout", "-q", "--force", commit)
    names = _git("-C", str(tree), "ls-files", "-z").split("\0")
    chosen = hub.choose([n for n in names if n], step.source, getattr(step, "allow_pickle", False))
    found, kept = [], {}
    for name in sorted(chosen):
        file = tree / name
        if file.is_symlink() or not file.is_file():
            continue
        pointer = POINTER.match(file.read_bytes()[:200]) if file.stat().st_size < 1024 else None
        if pointer:
            kept[name] = (pointer[1].decode(), int(pointer[2]))
        else:
            found.append(Item(name, path=str(file), size=file.stat().st_size))
    return found + _lfs(url, kept, token, stage.offline), {"commit": commit}


def _lfs(url: str, kept: Mapping[str, tuple[str, int]], token: str, offline: bool) -> list[Item]:
    if not kept:
        return []
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        top = Path(urllib.parse.urlsplit(url).path)
        places = {n: p for n, (oid, _) in kept.items() for p in _lfs_local(top, oid)}
        missing = [n for n in kept if n not in places]
        if missing:
            raise problem(
                f"{missing[0]} is kept with LFS, which {url} does not hold",
                do="name the repository by its https address",
            )
        return [Item(n, path=str(places[n]), sha256=kept[n][0], size=kept[n][1]) for n in kept]
    base = url.rstrip("/")
    at = (base if base.endswith(".git") else base + ".git") + "/info/lfs/objects/batch"
    asked = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": o, "size": s} for o, s in kept.values()],
    }
    headers = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with http.open_(at, headers, offline=offline, method="POST", data=json.dumps(asked).encode()) as response:
            objects = {o["oid"]: o for o in json.loads(response.read(64 << 20))["objects"]}
        out = []
        for name, (oid, size) in kept.items():
            action: Download = told(Download, objects[oid]["actions"]["download"], at)
            out.append(Item(name, url=action.href, sha256=oid, size=size, headers=action.header or {}))
        return out
    except http.Transient as e:
        raise http.unreachable(at, str(e)) from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise problem(f"{http.shown(at)} does not offer the files kept with LFS", do="check the repository") from e


def _lfs_local(top: Path, oid: str) -> list[Path]:
    places = [g / "lfs/objects" / oid[:2] / oid[2:4] / oid for g in (top / ".git", top)]
    return [p for p in places if p.is_file()]


def _sent(url: str, token: str) -> dict[str, str]:
    """What gives git a token for the server of one address and no other: it sends a header on after a redirect. Pure.

    In the environment, not in the arguments: those are shown to every user of the machine.
    """
    if not token:
        return {}
    parts = urllib.parse.urlsplit(url)
    return {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Bearer {token}",
        "GIT_CONFIG_KEY_1": "http.followRedirects",
        "GIT_CONFIG_VALUE_1": "false",
    }


def _git(*words: str, sent: Mapping[str, str] | None = None) -> str:
    env = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C",
        **(sent or {}),
    }
    try:
        done = subprocess.run(["git", *words], env=env, capture_output=True, text=True, timeout=3600, check=False)
    except FileNotFoundError as e:
        raise problem("git is not installed", why="a model is declared with `git:`", do="install git") from e
    except subprocess.TimeoutExpired as e:
        raise problem("git did not finish within an hour", do="check the network, then apply again") from e
    if done.returncode:
        silent = f"it was ended by signal {-done.returncode}" if done.returncode < 0 else "it said nothing"
        last = (done.stderr.strip().splitlines() or [silent])[-1].removeprefix("fatal: ")
        verb = words[2] if words[0] == "-C" else words[0]
        do = "check address and revision" if verb == "fetch" and done.returncode > 0 else "check the disk, apply again"
        raise problem(f"git cannot {verb} it", why=last, do=do)
    return done.stdout
