"""Ollama's registry protocol and its folder: a model's layers as files.

Registry: `GET /v2/NAMESPACE/MODEL/manifests/TAG`, `GET …/blobs/sha256:HEX`. Folder:
`manifests/HOST/NAMESPACE/MODEL/TAG`, `blobs/sha256-HEX`. https://github.com/ollama/ollama (manifest, server/images.go).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.adapters import caches, http, sources
from lab.adapters.answers import Manifest
from lab.adapters.download import Item
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import Fetch, Resolve

HOST = "registry.ollama.ai"
ACCEPT = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
NAMES = {"model": "model.gguf", "projector": "projector.gguf", "adapter": "adapter.gguf", "params": "params.json"}
"""Last word of a layer's media type → the file's name, where it is not that word."""


def parse(text: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag of `[HOST/][NAMESPACE/]MODEL[:TAG]`. Raises Problems. Pure."""
    match = re.fullmatch(r"(?:(?:([\w.-]+(?::\d+)?)/)?([\w.-]+)/)?([\w.-]+)(?::([\w.-]+))?", text)
    if match is None:
        raise problem(f"{text!r} is no name of an Ollama model", do="write MODEL:TAG or NAMESPACE/MODEL:TAG")
    return match[1] or HOST, match[2] or "library", match[3], match[4] or "latest"


def items(step: Fetch | Resolve, stage: Stage) -> tuple[list[Item], Mapping[str, Any]]:
    """The model's layers. Raises Refused or Problems."""
    host, space, model, tag = parse(str(step.source["ollama"]))
    base = str(step.source.get("endpoint") or f"https://{host}").rstrip("/") + f"/v2/{space}/{model}"
    sent = sources.headers(step, stage)
    if step.files and all(f.get("sha256") for f in step.files.values()):
        return [_item(n, str(f["sha256"]), f.get("size"), base, sent) for n, f in step.files.items()], {}
    local = caches.ollama() / "manifests" / host / space / model / tag
    # As Ollama itself does: what is here is taken, `lab lock` asks the registry for what is newer.
    if isinstance(step, Fetch) and local.is_file():
        data = local.read_bytes()
    elif getattr(step, "local", False) or (stage.offline and not http.loopback(base)):
        if not local.is_file():
            raise problem(
                f"{step.source['ollama']} is not on this machine",
                why=f"neither the store nor {caches.ollama()} has it, and no server is asked",
                do="set `offline: false`, then `lab apply` to fetch it",
            )
        data = local.read_bytes()
    else:
        data = http.body(f"{base}/manifests/{tag}", {**ACCEPT, **sent}, offline=stage.offline)
    try:
        found = [_item(n, d, s, base, sent) for n, d, s in layers(json.loads(data))]
    except (ValueError, RecursionError) as e:
        raise problem(f"{base} does not answer with a manifest", do="check the endpoint") from e
    return found, {"manifest": hashlib.sha256(data).hexdigest()}


def layers(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """File name, sha256 and bytes of each layer; ValueError where it is no manifest. Pure."""
    seen: dict[str, int] = {}
    for layer in Manifest.model_validate(manifest).layers:
        kind = layer.mediaType.rpartition(".")[2]
        name = NAMES.get(kind, kind)
        n = seen[name] = seen.get(name, 0) + 1
        stem, dot, end = name.partition(".")
        digest = layer.digest.removeprefix("sha256:")
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(digest)
        yield name if n == 1 else f"{stem}-{n}{dot}{end}", digest, layer.size


def _item(name: str, sha256: str, size: int | None, base: str, sent: Mapping[str, str]) -> Item:
    return Item(name, url=f"{base}/blobs/sha256:{sha256}", sha256=sha256, size=size, headers=sent)


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """What Ollama's folder holds: the name one would pull, and the manifest. Reads."""
    for manifest in sorted(folder.glob("manifests/*/*/*/*")):
        host, space, model, tag = manifest.parts[-4:]
        if manifest.is_file() and not manifest.name.startswith("."):
            name = model if (host, space) == (HOST, "library") else f"{space}/{model}"
            yield f"{name if host == HOST else f'{host}/{space}/{model}'}:{tag}", manifest
