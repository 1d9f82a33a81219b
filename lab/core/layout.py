"""Layout: where the content-addressed store keeps blobs, views and partial downloads. Pure paths, nothing is touched.

STORE/.lab.json                                which labs use the store
STORE/blobs/sha256/ab/<64 hex digits>          every file once, read-only, named by its content
STORE/models/[FAMILY/]MODEL/original/          a model's own files: links to blobs, and `.lab.json`
STORE/models/[FAMILY/]MODEL/QUANTIZATION/      a quantization of it, in the same shape
STORE/models/@STAGE/…                          the same for a stage of the lab: views of its own over the same blobs
STORE/incoming/                                partial downloads, keyed by the content they will have
STORE/dropped/                                 provenance of views that are gone: `lab gc` may keep their blobs
STORE/stray/                                   files somebody had put into a view, kept when the view was renewed
"""

from __future__ import annotations

import fnmatch
import os.path
from collections.abc import Mapping
from typing import Any

ORIGINAL = "original"
"""The folder of a model's own files beside its quantizations; no quantization may take this name."""
PROVENANCE = ".lab.json"
"""The file beside the links of a view, and at the top of a store."""
DEFAULT = "default"
"""The name of the store that `lab.store` declares."""


def blob(store: str, sha256: str) -> str:
    """Where the bytes with this hash lie."""
    return f"{store}/blobs/sha256/{sha256[:2]}/{sha256}"


def blobs(store: str) -> str:
    """The folder that holds every blob."""
    return f"{store}/blobs/sha256"


def incoming(store: str) -> str:
    """The folder of partial downloads."""
    return f"{store}/incoming"


def models(store: str) -> str:
    """The folder that holds every view."""
    return f"{store}/models"


def view(store: str, model: str, family: str = "", quantization: str = "", *, stage: str = "") -> str:
    """The folder of a model's own files, or of one of its quantizations; `stage` is the folder of a stage's views."""
    return "/".join(p for p in (models(store), stage, family, model, quantization or ORIGINAL) if p)


def stores(lab: Mapping[str, Any], default: str) -> dict[str, Mapping[str, Any]]:
    """The declared stores by name, each `{path, tier, models}`; the first is `default`.

    `lab.stores` maps a name to a path or to such a block:
    `stores: {bulk: {path: /Volumes/ext/lab, tier: bulk, models: ["*_671b"]}}`.
    """
    out: dict[str, Mapping[str, Any]] = {DEFAULT: {"path": default}}
    for name, block in (lab.get("stores") or {}).items():
        out[str(name)] = block if isinstance(block, Mapping) else {"path": str(block)}
    return out


def choose(lab: Mapping[str, Any], default: str, model: str, store: str = "") -> str | None:
    """The name of the store a model lives in; None where `store` names neither a store nor a tier.

    What the resource says wins: a store's name, else the first store of that tier. Without it, the first store whose
    `models` globs match the model's name, else the default.
    """
    known = stores(lab, default)
    if store:
        return store if store in known else next((n for n, b in known.items() if b.get("tier") == store), None)
    for name, block in known.items():
        if any(fnmatch.fnmatchcase(model, g) for g in block.get("models") or ()):
            return name
    return DEFAULT


def root(lab: Mapping[str, Any], default: str, model: str, store: str = "") -> str:
    """The absolute root of the store a model lives in; the default's where `store` names none."""
    name = choose(lab, default, model, store) or DEFAULT
    return os.path.expanduser(str(stores(lab, default)[name].get("path") or default)).rstrip("/")
