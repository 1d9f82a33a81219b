"""Models as each kind of source offers them: an Ollama registry, a release, ModelScope, and a git repository with LFS.

Each returns what is declared, and sha256 → the part of a request's path by which the file of that hash is asked for.
"""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

from tests.models.servers import Server, sha256

Offer = tuple[dict[str, Any], dict[str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def ollama(server: Server, layers: dict[str, bytes], base: str = "/v2/library/tiny", tag: str = "q8") -> Offer:
    """Layers by the last word of their media type; the manifest lies under `server.routes[BASE/manifests/TAG]`."""
    listed = [
        {"mediaType": f"application/vnd.ollama.image.{k}", "digest": f"sha256:{sha256(d)}", "size": len(d)}
        for k, d in layers.items()
    ]
    server.routes[f"{base}/manifests/{tag}"] = json.dumps({"schemaVersion": 2, "layers": listed}).encode()
    server.routes |= {f"{base}/blobs/sha256:{sha256(d)}": d for d in layers.values()}
    return {"ollama": f"tiny:{tag}", "endpoint": server.url}, {sha256(d): sha256(d) for d in layers.values()}


def release(server: Server, names: list[str]) -> Offer:
    """Files of `server.root` as the assets of the latest release."""
    assets = []
    for name in names:
        data = (server.root / name).read_bytes()
        known = {"name": name, "size": len(data), "digest": f"sha256:{sha256(data)}"}
        assets.append({**known, "browser_download_url": f"{server.url}/{name}"})
    for which in ("latest", "tags/v1"):
        server.routes[f"/repos/me/models/releases/{which}"] = {"tag_name": "v1", "assets": assets}
    block = {"release": "me/models", "endpoint": server.url, "include": names}
    return block, {sha256((server.root / n).read_bytes()): f"/{n}" for n in names}


def modelscope(server: Server, folder: Path) -> Offer:
    """The folder as `org/tiny` in ModelScope's own protocol."""
    base, held = "/api/v1/models/org/tiny/repo", contents(folder)
    files: list[dict[str, Any]] = [
        {"Path": n, "Size": len(d), "Sha256": sha256(d), "Type": "blob", "Revision": "abc"} for n, d in held.items()
    ]
    server.routes[f"{base}/files"] = {
        "Code": 200,
        "Data": {"Files": [*files, {"Path": "x", "Size": 0, "Type": "tree"}]},
    }
    plain = server.answer

    def answer(h: Any) -> None:
        if h.path.startswith(f"{base}?"):
            asked = urllib.parse.parse_qs(h.path.partition("?")[2])
            assert asked["Revision"] == ["abc"]
            (name,) = asked["FilePath"]
            return server.blob(h, f"/{name}", held[name], {})
        return plain(h)

    server.answer = answer  # type: ignore[method-assign]
    block = {"hub": "org/tiny", "endpoint": f"{server.url}/modelscope"}
    return block, {sha256(d): urllib.parse.urlencode({"FilePath": n}) for n, d in held.items()}


def repository(folder: Path, lfs: str = "model.safetensors") -> tuple[dict[str, Any], str]:
    """The folder as a git repository that keeps one file with LFS; what is declared, and the commit."""
    weights = (folder / lfs).read_bytes()
    digest = sha256(weights)
    (folder / lfs).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(weights)}\n")

    def git(*words: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True, text=True)
        return done.stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    held = folder / f".git/lfs/objects/{digest[:2]}/{digest[2:4]}/{digest}"
    held.parent.mkdir(parents=True)
    held.write_bytes(weights)
    return {"git": f"file://{folder}"}, git("rev-parse", "HEAD").strip()
