"""ModelScope's own protocol, where it differs from Hugging Face's: every file has a sha256 and a revision of its own.

API: `GET /api/v1/models/ID/repo/files?Revision=REV&Recursive=true` and
`GET /api/v1/models/ID/repo?Revision=REV&FilePath=NAME`.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any

from lab.adapters import http
from lab.adapters.answers import ScopeFile, told
from lab.core.problem import problem

HOME = "https://www.modelscope.cn"
MARK = "/modelscope"
"""An endpoint whose path ends so speaks this protocol too: a mirror of it."""


def speaks(base: str) -> bool:
    """Whether the server speaks ModelScope's protocol. Pure."""
    host = urllib.parse.urlsplit(base).hostname or ""
    return host.endswith(("modelscope.cn", "modelscope.ai")) or base.endswith(MARK)


def listing(
    base: str, repository: str, revision: str, sent: Mapping[str, str], offline: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The repository's files, each `{path, size, sha256, url}`, and what else is known. Raises Refused or Problems."""
    revision = "master" if revision == "main" else revision
    query = urllib.parse.urlencode({"Revision": revision, "Recursive": "true"})
    answer, _ = http.json_(f"{_api(base, repository)}/files?{query}", sent, offline=offline)
    data = answer.get("Data") if isinstance(answer, dict) else None
    files = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(files, list):
        raise problem(f"{base} does not list {repository}", why=str(answer)[:120], do="check the name and the revision")
    listed: list[ScopeFile] = told(list[ScopeFile], files, base)
    entries = [
        {
            "path": f.Path,
            "size": f.Size,
            "sha256": f.Sha256 or "",
            "url": file_url(base, repository, f.Revision or revision, f.Path),
        }
        for f in listed
        if f.Type != "tree"
    ]
    return entries, {"commit": revision}


def file_url(base: str, repository: str, revision: str, name: str) -> str:
    """Where a file is fetched from. Pure."""
    query = urllib.parse.urlencode({"Revision": revision, "FilePath": name})
    return f"{_api(base, repository)}?{query}"


def _api(base: str, repository: str) -> str:
    return f"{base.removesuffix(MARK)}/api/v1/models/{repository}/repo"
