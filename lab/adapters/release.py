"""Release assets of GitHub and servers that speak its API.

API: `GET /repos/OWNER/NAME/releases/tags/TAG` (or `/latest`) lists assets with size, address and, since 2025, digest.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from lab.adapters import http, hub, sources
from lab.adapters.answers import Asset, Release, told
from lab.adapters.download import Item
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import Fetch, Resolve

API = "https://api.github.com"
SUMS = re.compile(r"(?i)(sha256|sha256sums?|checksums?)([-_.].*)?(\.txt)?")


def items(step: Fetch | Resolve, stage: Stage) -> tuple[list[Item], Mapping[str, Any]]:
    """The assets of a release. Raises Refused or Problems."""
    source, sent = step.source, sources.headers(step, stage)
    base = str(source.get("endpoint") or API).rstrip("/")
    tag = str(source.get("tag") or "latest")
    which = "latest" if tag == "latest" else f"tags/{urllib.parse.quote(tag, safe='')}"
    if step.files and all(f.get("sha256") and f.get("url") for f in step.files.values()):
        return [
            Item(
                n,
                url=str(f["url"]),
                sha256=str(f["sha256"]),
                size=f.get("size"),
                headers=sources.own(str(f["url"]), base, sent),
            )
            for n, f in step.files.items()
        ], {}
    at = f"{base}/repos/{source['release']}/releases/{which}"
    about, _ = http.json_(at, {"Accept": "application/vnd.github+json", **sent}, offline=stage.offline)
    release: Release = told(Release, about, at)
    assets = {a.name: a for a in release.assets}
    if not assets:
        raise problem(f"release {tag} of {source['release']} has no assets", do="name another `tag`")
    sums = _sums(assets, sent, base, stage.offline)
    names = hub.choose(assets, source, getattr(step, "allow_pickle", False))
    found = []
    for name in sorted(names):
        asset = assets[name]
        digest = (asset.digest or "").removeprefix("sha256:") or sums.get(name, "")
        url = asset.browser_download_url
        headers = sources.own(url, base, sent)
        if sent and not headers and asset.url:
            # A private release is fetched through the API: the token goes to the API's host only.
            url, headers = asset.url, {**sent, "Accept": "application/octet-stream"}
        found.append(Item(name, url=url, sha256=digest, size=asset.size, headers=headers))
    return found, {"tag": release.tag_name or tag}


def _sums(assets: Mapping[str, Asset], sent: Mapping[str, str], base: str, offline: bool) -> dict[str, str]:
    """Hashes by name from a checksum file among the assets, where there is one."""
    name = next((n for n in assets if SUMS.fullmatch(n)), None)
    if name is None:
        return {}
    url = assets[name].browser_download_url
    text = http.body(url, sources.own(url, base, sent), offline=offline, limit=1 << 20).decode("utf-8", "replace")
    return {m[2].strip(): m[1] for m in re.finditer(r"(?m)^([0-9a-f]{64})[ \t]+\*?(.+)$", text)}
