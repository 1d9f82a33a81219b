"""Foreign caches: model files of Hugging Face, Ollama and LM Studio, found where they lie. Reads; they are not ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.adapters import store
from lab.adapters.download import Item
from lab.core.steps_models import Fetch


def huggingface(home: Path | None = None, env: Mapping[str, str] = os.environ) -> Path:
    """The folder of Hugging Face's hub cache, as huggingface_hub finds it."""
    if home is None and (found := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")):
        return Path(found).expanduser()
    if home is None and (found := env.get("HF_HOME")):
        return Path(found).expanduser() / "hub"
    return (home or Path.home()) / ".cache/huggingface/hub"


def ollama(home: Path | None = None, env: Mapping[str, str] = os.environ) -> Path:
    """Ollama's folder of manifests and blobs."""
    if home is None and (found := env.get("OLLAMA_MODELS")):
        return Path(found).expanduser()
    return (home or Path.home()) / ".ollama/models"


def lmstudio(home: Path | None = None) -> Iterator[Path]:
    """LM Studio's folders of models, now and formerly."""
    for name in (".lmstudio/models", ".cache/lm-studio/models"):
        yield (home or Path.home()) / name


def folder(repository: str) -> str:
    """How Hugging Face's cache names a repository's folder. Pure."""
    return "models--" + repository.replace("/", "--")


def foreign(path: Path) -> bool:
    """Whether a path lies in a cache of another tool."""
    full = path.resolve()
    return any(full.is_relative_to(c.resolve()) for c in (huggingface(), ollama(), *lmstudio()))


def find(item: Item, step: Fetch) -> Path | None:
    """A foreign file that should have the item's bytes (the caller hashes it); None where no cache has it."""
    hub = str(step.source.get("hub", ""))
    candidates = [ollama() / "blobs" / f"sha256-{item.sha256}"] if item.sha256 else []
    cache = huggingface()
    if hub:
        own = cache / folder(hub)
        candidates += [own / "blobs" / n for n in (item.sha256, item.oid) if n]
        candidates += sorted(own.glob(f"snapshots/*/{item.name}"))
        candidates += [f / hub / item.name for f in lmstudio()]
    if cache.is_dir() and item.sha256:
        candidates += [c / "blobs" / item.sha256 for c in cache.glob("models--*")]
    for file in candidates:
        if file.is_file() and item.size in (None, file.stat().st_size):
            return file.resolve()
    return None


def found(sha256: str) -> Path | None:
    """A file of Ollama's or Hugging Face's named by this hash; its bytes are not checked."""
    names = [ollama() / "blobs" / f"sha256-{sha256}"]
    names += [c / "blobs" / sha256 for c in huggingface().glob("models--*")]
    return next((f.resolve() for f in names if sha256 and f.is_file()), None)


def linked(view: Path, name: str, root: Path) -> Path | None:
    """The foreign file that a view's link leads to; None where it leads into the store."""
    target = (store.provenance(view) or {}).get("foreign", {}).get(name)
    return Path(target) if target and Path(target).is_file() and root not in Path(target).parents else None
