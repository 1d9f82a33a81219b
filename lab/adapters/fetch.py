"""Fetch: a model's files from wherever they are cheapest: the store, another store, a foreign cache, the network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from lab.adapters import caches, clone, download, headers, http, sources, store
from lab.adapters.download import Item, Net
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import DropView, Fetch, Keep, MoveView
from lab.core.units import size as bytes_

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that run code when they are loaded."""
MARGIN = 256 << 20
"""Bytes of a volume that downloads leave free."""

_promised: dict[int, int] = {}
_promises = threading.Lock()


def fetch(step: Fetch, stage: Stage) -> Facts:
    """Every file of the model is a blob (or linked to where it lies), and the view is in place."""
    root = Path(step.store)
    store.enter(root, str(step.provenance.get("lab", "")), stage.state)
    net = patience(step.network, stage.offline or step.local)
    items, learned = sources.items(step, stage)
    if not items:
        raise problem(f"{stage.address} has no files", why="its source lists none that match", do="check `include`")
    refuse_pickles([i.name for i in items], step.allow_pickle)
    files, foreign = _Work(step, stage, root, net, items).run()
    return finish(step, stage, root, files, foreign, {**step.known, **learned})


def keep(step: Keep, stage: Stage) -> Facts:
    """What was made in a folder is in the store under its hashes, and the folder is gone."""
    root, folder = Path(step.store), stage.scratch / step.folder
    store.enter(root, str(step.provenance.get("lab", "")), stage.state)
    if folder.is_file():
        made = {folder.resolve().name: folder}
    else:
        shown = (f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith("."))
        made = {f.relative_to(folder).as_posix(): f for f in shown}
    if not made:
        raise problem(
            f"nothing was made in {folder}", why=f"{stage.address} is to be kept from there", do="apply again"
        )
    refuse_pickles(list(made), step.allow_pickle)
    files = {}
    for done, (name, file) in enumerate(made.items()):
        stage.check()
        stage.progress(done, len(made), "files")
        # Copied first and removed at the end: a kill between finds the folder whole.
        files[name] = store.copy(root, file)
        stage.remember(store.path(root, files[name]), files[name])
    facts = finish(step, stage, root, files, {}, {})
    if not step.copy:
        shutil.rmtree(folder, ignore_errors=True)
    return facts


def move(step: MoveView, stage: Stage) -> Facts:
    """The new view stands, every byte verified on its way, and the old one is gone; twice is the same as once."""
    root, old = Path(step.store), Path(step.old)
    store.enter(root, str(step.provenance.get("lab", "")), stage.state)
    files = dict(step.files)
    for done, (name, sha256) in enumerate(files.items()):
        stage.check()
        stage.progress(done, len(files), "files")
        blob = store.path(root, sha256)
        if blob.is_file() and store.digest(blob) == sha256:
            continue
        if not (old / name).is_file():
            raise problem(
                f"{name} of {stage.address} is not there to be moved",
                why=f"{old / name} leads nowhere",
                do="take back the old name and store and apply, then move it",
            )
        store.copy(root, old / name, sha256)
        stage.remember(blob, sha256)
    facts = finish(step, stage, root, files, {}, {})
    store.drop(old)
    return facts


def drop(step: DropView, stage: Stage) -> None:
    """The view is gone."""
    store.drop(Path(step.view))


def finish(
    step: Fetch | Keep | MoveView,
    stage: Stage,
    root: Path,
    files: Mapping[str, str],
    foreign: Mapping[str, Path],
    learned: Mapping[str, Any],
) -> Facts:
    """The view stands, with facts from the files' headers in its provenance; returns what was learned."""
    at = {name: foreign.get(name) or store.path(root, sha256) for name, sha256 in files.items()}
    facts = {**learned, **headers.facts(at)}
    if not isinstance(step, MoveView) and step.format and facts.get("format") not in (None, step.format):
        raise problem(
            f"{stage.address} is {facts['format']}, not {step.format}",
            why="its files say so",
            do=f"declare `format: {facts['format']}`, or name other files",
        )
    store.view(root, step.view, files, {**step.provenance, "model": facts}, foreign)
    return {"view": step.view, "files": dict(files), "model": facts}


def patience(network: Facts, offline: bool) -> Net:
    """How patient downloads are, as declared."""
    known = {
        k: type(getattr(Net(), k))(v)
        for k, v in network.items()
        if k in ("timeout", "tries", "connections") and v is not None
    }
    return Net(offline=offline, **known)


def refuse_pickles(names: Sequence[str], allowed: bool) -> None:
    """Raises where a file would run code when loaded and that was not allowed."""
    found = [n for n in names if n.lower().endswith(PICKLES)]
    if found and not allowed:
        raise problem(
            f"{found[0]} may run code when it is loaded",
            why="it is a pickle file" + (f", and so are {len(found) - 1} more" if len(found) > 1 else ""),
            do='take safetensors or GGUF files (`exclude: ["*.bin"]`), or set `allow_pickle: true`',
        )


class _Work:
    """The files of one Fetch, some side by side, with one progress and one stop for all."""

    def __init__(self, step: Fetch, stage: Stage, root: Path, net: Net, items: list[Item]) -> None:
        self.step, self.stage, self.root, self.net, self.items = step, stage, root, net, items
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.done = 0
        sizes = [i.size for i in items]
        self.total = sum(s for s in sizes if s is not None) if None not in sizes else None
        self.files: dict[str, str] = {}
        self.foreign: dict[str, Path] = {}
        self.notes = stage.scratch / "verified.json"
        try:
            self.verified: dict[str, Any] = json.loads(self.notes.read_bytes())
        except (OSError, ValueError):
            self.verified = {}

    def run(self) -> tuple[dict[str, str], dict[str, Path]]:
        missing = [i for i in self.items if not self.here(i)]
        promise = self.reserve(missing)
        try:
            with ThreadPoolExecutor(max(1, min(self.net.connections, len(missing) or 1))) as pool:
                jobs = [pool.submit(self.obtain, i) for i in missing]
                wait(jobs, return_when=FIRST_EXCEPTION)
                self.stop.set()
                for job in jobs:
                    job.cancel()
            errors = [e for j in jobs if not j.cancelled() and (e := j.exception()) and not isinstance(e, _Stopped)]
            if errors:
                raise errors[0]
        finally:
            promise()
        return {i.name: self.files[i.name] for i in self.items}, self.foreign

    def check(self) -> None:
        if self.stop.is_set():
            raise _Stopped
        with self.lock:
            self.stage.check()

    def moved(self, size: int) -> None:
        with self.lock:
            self.done += size
            self.stage.progress(self.done, self.total)

    def here(self, item: Item) -> bool:
        """Whether the file needs no bytes moved: it was just observed whole, or it is a verified blob already."""
        sha256 = item.sha256
        if sha256 and self.step.kept.get(item.name) == sha256:
            old = caches.linked(Path(self.step.view), item.name, self.root)
            if old is not None:
                self.foreign[item.name] = old
                return self.have(item, sha256, 0)
            if store.path(self.root, sha256).exists():
                return self.have(item, sha256, item.size or 0)
        if not sha256:
            return False
        blob = store.path(self.root, sha256)
        if not self.whole(blob, sha256):
            return False
        # Whoever renamed it may have been killed before its name was on disk.
        store.sync(blob.parent)
        return self.have(item, sha256, item.size or 0)

    def have(self, item: Item, sha256: str, size: int) -> bool:
        with self.lock:
            self.files[item.name] = sha256
        self.moved(size)
        return True

    def whole(self, file: Path, sha256: str) -> bool:
        """Whether the file has this hash; not computed again while the file stands."""
        try:
            s = os.stat(file)
        except OSError:
            return False
        identity = [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]
        if self.verified.get(sha256) == identity:
            return True
        if store.digest(file) != sha256:
            return False
        self.note(file, sha256, identity)
        return True

    def same(self, file: Path, item: Item) -> str:
        """The sha256 of a foreign file that has the item's bytes; empty where it has others."""
        if item.sha256:
            return item.sha256 if self.whole(file, item.sha256) else ""
        data = file.read_bytes() if file.stat().st_size <= headers.SMALL else b""
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return hashlib.sha256(data).hexdigest() if item.oid and git == item.oid else ""

    def note(self, file: Path, sha256: str, identity: list[int] | None = None) -> None:
        s = os.stat(file)
        with self.lock:
            self.verified[sha256] = identity or [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]
            self.notes.parent.mkdir(parents=True, exist_ok=True)
            new = self.notes.with_suffix(".tmp")
            new.write_text(json.dumps(self.verified))
            os.replace(new, self.notes)
            self.stage.remember(file, sha256)

    def obtain(self, item: Item) -> None:
        try:
            self.check()
            found = caches.find(item, self.step)
            if item.path and (item.link or found is None):
                found = Path(item.path)
                sha256 = item.sha256 or store.digest(found)
                if item.sha256 and not self.whole(found, sha256):
                    raise problem(f"{found} has other bytes than declared", do="declare the hash it has")
                if item.link:
                    return self.adopt(item, found, sha256)
                store.copy(self.root, found, sha256)
            elif found is not None and (sha256 := self.same(found, item)):
                return self.adopt(item, found, sha256)
            elif (other := self.elsewhere(item)) is not None:
                sha256 = store.copy(self.root, other, item.sha256)
            elif self.step.local:
                raise problem(
                    f"{item.name} of {self.stage.address} is not on this machine",
                    why="no store and no other tool has its bytes, and no server is asked",
                    do="run `lab apply` to fetch it",
                )
            else:
                sha256 = download.download(item, self.root, self.net, self.check, self.moved)
            self.note(store.path(self.root, sha256), sha256)
            with self.lock:
                self.files[item.name] = sha256
        except http.Refused as e:
            self.stop.set()
            raise sources.refused(e, self.step) from e
        except BaseException:
            self.stop.set()
            raise

    def adopt(self, item: Item, file: Path, sha256: str) -> None:
        """The file stays where it lies; the view leads there."""
        self.note(file, sha256)
        with self.lock:
            self.foreign[item.name] = file
        self.have(item, sha256, item.size or 0)

    def elsewhere(self, item: Item) -> Path | None:
        """The blob in another of the lab's stores."""
        if not item.sha256:
            return None
        return next((p for s in self.step.stores if (p := store.path(Path(s), item.sha256)).is_file()), None)

    def reserve(self, missing: Sequence[Item]) -> Any:
        """The bytes still to come fit on the volume beside what others were promised; returns their release."""
        need = 0
        for item in missing:
            if item.link or (item.path and clone.same_volume(Path(item.path), self.root)):
                continue
            part = self.root / "incoming" / f"{item.key}.part"
            need += max(0, (item.size or 0) - (part.stat().st_size if part.exists() else 0))
        volume = os.stat(self.root).st_dev
        with _promises:
            free = shutil.disk_usage(self.root).free - _promised.get(volume, 0)
            if need and need + MARGIN > free:
                raise problem(
                    f"{bytes_(need)} do not fit in {self.root}",
                    why=f"{bytes_(max(0, free))} are free there beside what other downloads need",
                    do="run `lab gc`, give the model another `store:`, or take a smaller one",
                )
            _promised[volume] = _promised.get(volume, 0) + need

        def release() -> None:
            with _promises:
                _promised[volume] -= need

        return release


class _Stopped(Exception):
    """Another file of the same model failed first."""
