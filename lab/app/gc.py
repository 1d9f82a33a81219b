"""gc: frees what no declaration, record, run or kept generation needs, after showing it.

What is needed is found without knowing the kinds: every SHA-256 that is written in `conf/` (all profiles and locks), in
the ledger, in the runs' files (of every stage), in the views of every lab that shares a store, or for a kept
generation, keeps its blob.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters import store
from lab.app.lab import Lab
from lab.app.models import Library
from lab.core import layout, stages
from lab.core.address import Address
from lab.core.problem import Problems
from lab.core.record import Record
from lab.ledger import generations
from lab.ledger.ledger import Ledger
from lab.runs.readers import readers

HEX = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
READ = 16 << 20
"""Bytes of each file that are searched for hashes."""
HOUR = 3600


@dataclass(frozen=True, slots=True)
class Waste:
    """One thing to free: where, how many bytes on disk, and why nothing needs it."""

    kind: str
    """`blob`, `view`, `partial` or `rest`."""
    path: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What may be freed, and what was left for which reason."""

    waste: tuple[Waste, ...]
    kept: Mapping[str, int]
    """Reason → bytes of blobs that no view links to and that are kept all the same."""

    @property
    def bytes(self) -> int:
        """Bytes that freeing all gives back."""
        return sum(w.bytes for w in self.waste)


def find(lab: Lab, *, keep: int = 1, older: float = 7) -> Findings:
    """What may be freed: `keep` generations and partial downloads younger than `older` days are left alone. Reads."""
    library = Library(lab)
    needed, read = _needed(lab), readers(lab.state)
    waste: list[Waste] = []
    kept: dict[str, int] = {}
    for root in library.roots.values():
        if store.stamped(root) is None:
            continue
        orphans = list(_orphans(lab, root, read))
        shared, ours = not set(store.stamped(root) or ()) <= {lab.id}, set(_once(lab, root, orphans))
        waste += orphans
        gone = {w.path for w in orphans}
        linked = {s for f, r in store.views(root) if str(f) not in gone for s in (r.get("files") or {}).values()}
        later = {h for stone in _stones(lab, root, keep) for h in stone}
        for blob in sorted((root / "blobs").rglob("*")):
            if not blob.is_file() or blob.name in linked or blob.name.endswith(".lab-tmp"):
                continue
            try:
                about = blob.stat()
            except FileNotFoundError:
                continue  # another lab freed it
            size = about.st_blocks * 512
            reason = next((r for r, known in needed.items() if blob.name in known), "")
            reason = reason or ("a kept generation" if blob.name in later else "")
            if not reason and shared and blob.name not in ours and time.time() - about.st_ctime < HOUR:
                reason = "another lab, which may have no view of it yet"
            if reason:
                kept[reason] = kept.get(reason, 0) + size
            else:
                waste.append(Waste("blob", str(blob), size, "nothing needs its content"))
        waste += _incoming(lab, root, older)
        waste += _left(lab, root)
    return Findings(tuple(waste), kept)


def gc(lab: Lab, found: Findings | None = None, *, keep: int = 1, older: float = 7) -> Findings:
    """What was found is freed, under the writer's lock; returns what really was."""
    with lab.alone("gc"), ExitStack() as stack:
        for root in sorted({r for r in Library(lab).roots.values() if store.stamped(r) is not None}):
            stack.enter_context(store.alone(root))  # no lab makes a view meanwhile of what nothing needs yet
        # What was shown is freed only where it is still waste now.
        now = find(lab, keep=keep, older=older)
        shown = {w.path for w in found.waste} if found else None
        done = []
        for waste in now.waste:
            if shown is None or waste.path in shown:
                _free(Path(waste.path), waste.kind)
                done.append(waste)
        for root in Library(lab).roots.values():
            _tidy(root, {w.path for w in done})
    return Findings(tuple(done), now.kept)


def claim(lab: Lab, root: Path) -> None:
    """Other labs know that this one writes there, before it does: what it is making is not swept under its feet."""
    with contextlib.suppress(Problems):  # whatever writes there tells it
        store.enter(root, lab.id, lab.state)


def tidy(lab: Lab) -> None:
    """What work left behind in the stores on its way is gone; called by the one writer, when all its work is done."""
    for root in Library(lab).roots.values():
        if (root / "datasets").is_dir():
            claim(lab, root)  # an apply that was killed before may have been another Lab's, which claimed nothing
        if store.stamped(root) is None:
            continue
        with store.alone(root):  # a lab, or another stage of this one, may be about to write that it is there too
            for waste in (*_incoming(lab, root, 7), *_left(lab, root)):
                if waste.kind == "rest":
                    with contextlib.suppress(OSError):  # gone meanwhile, or another account's in a store they share
                        _free(Path(waste.path), waste.kind)


def _needed(lab: Lab) -> dict[str, set[str]]:
    """Reason → every SHA-256 that is written there."""
    conf = {h for f in lab.conf.rglob("*") if f.suffix in (".yaml", ".yml") for h in _hashes(f)}
    ours = {h for f in _runs(lab.state) for h in _hashes(f)}
    found = {"a declaration or lock": conf, "the ledger": _recorded(lab.records), "a run": ours}
    for stage, state in lab.others.items():
        theirs = _recorded(lab.records_of(stage)) | {h for f in _runs(state) for h in _hashes(f)}
        found[f"stage {stage}" if stage else "the lab without a stage"] = theirs
    return found


def _recorded(records: Mapping[Address, Record]) -> set[str]:
    texts = (r.facts_json + r.inputs_json for r in records.values())
    return {h.decode() for text in texts for h in HEX.findall(text.encode())}


def _runs(state: Path) -> Iterator[Path]:
    for folder in ("runs", "studies"):
        yield from (state / folder).rglob("*.json")


def _hashes(file: Path) -> Iterable[str]:
    try:
        with open(file, "rb") as f:
            return {h.decode() for h in HEX.findall(f.read(READ))}
    except OSError:
        return ()


def _orphans(lab: Lab, root: Path, read: Collection[str]) -> Iterator[Waste]:
    """Views of this lab that neither a record nor a declaration of any profile stands for, and no run reads."""
    recorded = {str(r.facts.get("view")) for r in lab.records.values()}
    for folder, record in store.views(root):
        address = Address(record.get("address") or "")
        if record.get("lab") != lab.id or str(folder) in recorded or not address or address in read:
            continue
        file = lab.conf / address.kind / f"{address.name.partition('.')[0]}.yaml"
        if not file.exists() and not (lab.conf / address.kind / f"{address.name}.yaml").exists():
            yield Waste("view", str(folder), 0, f"{address} is neither declared nor recorded")


def _once(lab: Lab, root: Path, orphans: Iterable[Waste]) -> Iterator[str]:
    """Hashes of what views of this lab held that are gone or going."""
    said: list[Mapping[str, Any]] = [_json(stone) for stone in (root / "dropped").glob("*.json")]
    said += [store.provenance(Path(w.path)) or {} for w in orphans]
    for one in said:
        if one.get("lab") == lab.id:
            yield from (one.get("files") or {}).values()


def _stones(lab: Lab, root: Path, keep: int) -> Iterator[set[str]]:
    """Hashes of dropped views that a kept generation declared, and those of other labs."""
    declared = {lab.id: _declared(lab.ledger, keep)}
    id = stages.declared(lab.head["lab"])
    for stage in lab.others:
        with contextlib.closing(lab.ledger_of(stage)) as ledger:
            declared[stages.own(id, stage)] = _declared(ledger, keep)
    for stone in (root / "dropped").glob("*.json"):
        said = _json(stone)
        whose = declared.get(str(said.get("lab")))
        if whose is None or str(said.get("address")) in whose:
            yield set((said.get("files") or {}).values())


def _declared(ledger: Ledger, keep: int) -> set[str]:
    """What the last `keep` generations declared."""
    latest = generations.latest(ledger)
    numbers = range(max(1, latest - keep + 1), latest + 1)
    return {str(a) for number in numbers for a in generations.declared_at(ledger, number)}


def _incoming(lab: Lab, root: Path, older: float) -> Iterator[Waste]:
    alone = set(store.stamped(root) or ()) <= {lab.id}
    folder = Path(layout.incoming(str(root)))
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            age, size = time.time() - file.lstat().st_mtime, _size(file)
        except FileNotFoundError:
            continue  # another lab is done with it
        if file.suffix in (".part", ".json") and re.fullmatch("[0-9a-f]{40,64}", file.stem):
            if _busy(file.with_suffix(".part")):
                continue
            if store.path(root, file.stem).exists():
                yield Waste("partial", str(file), size, "its content is in the store")
            elif age > older * 24 * HOUR:
                yield Waste("partial", str(file), size, f"nobody went on with it for {age / 24 / HOUR:.0f} days")
        elif _busy(file.with_suffix(".lock")):
            continue
        elif alone or age > HOUR:
            yield Waste("rest", str(file), size, "an intermediate of work that is finished or was killed")


def _left(lab: Lab, root: Path) -> Iterator[Waste]:
    """Temporaries beside views, notes and stamps; a young one may be another lab's, at work just now."""
    alone = set(store.stamped(root) or ()) <= {lab.id}
    tops = (layout.models(str(root)), str(root / "datasets"), str(root / "dropped"))
    found = [f"{root}/{name}" for name in os.listdir(root) if name.endswith(".lab-tmp")]
    for folder, names, files in (step for top in tops for step in os.walk(top)):
        found += [f"{folder}/{name}" for name in (*names, *files) if name.endswith(".lab-tmp")]
        names[:] = [n for n in names if not n.endswith(".lab-tmp")]
    for path in map(Path, found):
        try:
            if alone or time.time() - path.lstat().st_mtime > HOUR:
                yield Waste("rest", str(path), _size(path), "left by a killed apply")
        except FileNotFoundError:
            continue


def _busy(part: Path) -> bool:
    try:
        with open(part, "rb") as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(f.lstat().st_blocks * 512 for f in path.rglob("*"))
    return path.lstat().st_blocks * 512


def _free(path: Path, kind: str) -> None:
    if kind == "view":
        store.drop(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _tidy(root: Path, freed: set[str]) -> None:
    """Empty folders and notes of blobs that are gone are removed."""
    for stone in (root / "dropped").glob("*.json"):
        if not any(store.path(root, h).exists() for h in (_json(stone).get("files") or {}).values()):
            stone.unlink()
    for path in {Path(f).parent for f in freed}:
        if path.is_relative_to(root / "blobs"):
            try:
                path.rmdir()
            except OSError:
                continue


def _json(file: Path) -> dict[str, Any]:
    import json

    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
