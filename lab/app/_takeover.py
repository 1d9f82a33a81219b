"""What a lab had on the machine before, in its places on this one: from a backup's snapshot or from a bundle."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.adapters import archives, store
from lab.adapters.bundle import Bundle
from lab.adapters.files import put
from lab.app import _places, _snapshot, state
from lab.app import backup as backups
from lab.app._places import Moved
from lab.app.lab import Lab
from lab.apply.events import Event, Tell
from lab.core.address import Address
from lab.core.problem import Problem, Problems, did_you_mean, problem
from lab.core.record import Record
from lab.ledger.sqlite import File

REPORT = "rebuild.json"
"""Below `state/`: what the last rebuild attests."""
REWRITTEN = ("runs/*/*.json", "experiments/*.json", "backup/*.json")
"""Below `state/`: small texts that name places."""


@dataclass(frozen=True)
class Taken:
    """What was taken over: the records as if they had been made here, and what is to be said of it."""

    snapshot: str = ""
    at: float = 0.0
    commit: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    """Address → `{digest, facts}`, told in this lab's places."""
    notes: tuple[str, ...] = ()


def from_backup(lab: Lab, name: str = "", repo: str = "", at: str = "") -> Taken:
    """The newest snapshot's state and files are in their places here, and the ledger names them."""
    declared = sorted(a.name for a in lab.declarations if a.kind == "backup")
    if not name and len(declared) != 1:
        raise problem(
            "name the backup to take the state from"
            if declared
            else f"profile {lab.profile or '-'} declares no backup",
            why=f"declared are {', '.join(declared)}" if declared else "ledger, history and runs are in no repository",
            do="`--backup NAME`" if declared else "give another `profile=`, or `--without-backup` to begin anew",
        )
    name = name or declared[0]
    if name not in declared:
        raise problem(f"no backup `{name}` is declared{did_you_mean(name, declared)}", do="see conf/backup/")
    settings: Any = lab.declaration(f"backup.{name}")
    applied = settings.settings(lab.context(f"backup.{name}"))
    scratch = lab.state / "cache" / "rebuild"
    problems: list[Problem] = []
    known = backups.repositories(applied)
    # A repository that lies elsewhere by now is still the same one.
    chosen = [r for r in known if r.repo == repo] or [replace(known[0], repo=repo)] if repo else known
    for one in chosen:
        shutil.rmtree(scratch, ignore_errors=True)
        lab.tell(Event("say", "rebuild", text=f"restoring from {one.repo}"))
        try:
            return _take(lab, _snapshot.fetch(name, one, scratch, at))[0]
        except Problems as e:
            problems += (
                replace(p, do="mount its volume, or say where it is now with `--repo PLACE`")
                if p.summary.startswith("there is no repository")
                else p
                for p in e.problems
            )
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    raise Problems(*problems)


def from_bundle(lab: Lab, bundle: Bundle) -> Taken:
    """What the bundle holds is in its places here: state, stores, packages."""
    if bundle.manifest["platform"] != lab.host.platform:
        raise problem(
            f"the bundle is for {bundle.manifest['platform']}, and this machine is {lab.host.platform}",
            do="rebuild from the repository, with a network",
        )
    moved = counter(lab.tell, bundle)
    taken = Taken()
    scratch = lab.state / "cache" / "rebuild"
    shutil.rmtree(scratch, ignore_errors=True)
    here = _places.of(lab)
    places = Moved.between(bundle.manifest["places"], here)
    try:
        links: Mapping[str, str] = bundle.manifest["links"]
        for name in bundle.below("snapshot"):
            bundle.copy(name, scratch / name.removeprefix("snapshot/"), moved)
        for name in (n for n in links if n.startswith("snapshot/")):
            link = scratch / name.removeprefix("snapshot/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(links[name])
        if scratch.exists():
            taken, places = _take(lab, _snapshot.opened(scratch, "bundle"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name in bundle.below("archives"):
        bundle.copy(name, archives.folder(lab.state) / name.removeprefix("archives/"), moved)
    for name in bundle.below("store"):
        target = _stored(name, here)
        bundle.copy(name, target, moved)
        if "/blobs/" in name:
            target.chmod(0o444)
        elif target.suffix == ".json":
            target.write_text(places.text(target.read_text()))
    for name in (n for n in links if n.startswith("store/")):
        target = _stored(name, here)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(links[name])
    for root in {v for n, v in here.items() if n.startswith("store ")}:
        if Path(root).is_dir():
            store.stamp(Path(root), lab.id)
    for path, name in bundle.manifest["copies"].items():
        if not (at := Path(places.path(path))).exists():
            bundle.copy(name, at, moved)
    return taken


def _stored(name: str, here: Mapping[str, str]) -> Path:
    _, which, inside = name.split("/", 2)
    return Path(here.get(f"store {which}", here["store default"])) / inside


def _take(lab: Lab, restored: _snapshot.Restored) -> tuple[Taken, Moved]:
    """A snapshot's files are in their places here but what git holds; the ledger and its kin name the new places."""
    manifest = restored.manifest
    if manifest["lab"] != lab.id:
        raise problem(
            f"the snapshot {restored.snapshot} is of another lab",
            why=f"its id is {manifest['lab']}, conf/lab.yaml says {lab.id}",
            do="give the backup of this lab",
        )
    if wrong := restored.wrong():
        raise problem(
            f"the snapshot {restored.snapshot} is not whole", why="; ".join(wrong[:5]), do="try another `--at`"
        )
    old = manifest.get("places") or {"root": manifest["root"], "state": manifest["state"]}
    places = Moved.between(old, _places.of(lab))
    versioned = tuple(f"{old['root']}/{n}/" for n in ("conf", "docs", "playbooks", "recipes"))
    skipped = tuple(f"{old['state']}/{n}" for n in ("envs/", "lock", "cache/", "staged/", REPORT))
    ours = tuple(f"{p}/" for n, p in old.items() if n != "home")
    notes = []
    if manifest.get("overrides") and not lab.overrides:
        notes.append(f"it was applied with {' '.join(manifest['overrides'])}: give these too for the same resources")
    chosen = []
    for path, lies in restored.pairs.items():
        here = Path(places.path(path))
        if path.startswith(versioned):
            if not lies.is_symlink() and not _equal(lies, here):
                name = Path(path).relative_to(old["root"])
                notes.append(f"{name} was not committed as it was backed up: git's is used")
        elif path.startswith(skipped):
            continue
        elif path.startswith(ours) or not os.path.lexists(here):
            chosen.append(path)
        elif not _equal(lies, here):
            notes.append(f"{here} was there already, other than it was backed up, and is kept")
    before = {Address(a): _record(a, v) for a, v in manifest["resources"].items()}
    _snapshot.place(restored, chosen, lambda p: Path(places.path(p)), places)
    fresh = Lab(lab.root, lab.overrides, lab.tell)
    moved = places
    copy = lab.state / "ledger.sqlite"
    if isinstance(fresh.kept, File) or (copy.exists() and fresh.kept.state()):
        if not isinstance(fresh.kept, File):
            fresh.kept.take(copy)
            copy.unlink()
        with state.writing(fresh, "rebuild") as ledger:
            records, moved = places.records(ledger.records())
            with ledger.transaction():
                ledger.put(records.values())
    for pattern in REWRITTEN:
        for file in lab.state.glob(pattern):
            text = file.read_text()
            if (new := moved.text(text)) != text:
                put(file, new.encode(), mode=file.stat().st_mode & 0o777)
    _tracked(lab.state / "mlflow" / "mlflow.db", moved)
    after = {a: moved.record(r) for a, r in before.items()}
    taken = Taken(
        restored.snapshot,
        manifest["at"],
        manifest.get("commit", ""),
        {a: {"digest": r.digest, "facts": r.facts} for a, r in after.items()},
        tuple(notes),
    )
    return taken, moved


def _equal(a: Path, b: Path) -> bool:
    return b.is_file() and a.stat().st_size == b.stat().st_size and filecmp.cmp(a, b, shallow=False)


def _record(address: str, value: Mapping[str, Any]) -> Record:
    return Record(Address(address), value["digest"], "", json.dumps(value["facts"]), "{}", "{}")


def _tracked(path: Path, moved: Moved) -> None:
    """MLflow finds the artifacts of runs where they are now."""
    if not path.exists():
        return
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for table, key, column in (
            ("runs", "run_uuid", "artifact_uri"),
            ("experiments", "experiment_id", "artifact_location"),
        ):
            rows = db.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()  # nosec B608 # names from above
            db.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [(moved.text(v), k) for k, v in rows])  # nosec B608 # names from above


def counter(tell: Tell, bundle: Bundle) -> Callable[[int], None]:
    """Tells how much of a bundle was read."""
    done, total = 0, sum(int(f["size"]) for f in bundle.files.values())

    def moved(size: int) -> None:
        nonlocal done
        done += size
        tell(Event("progress", "bundle", done=done, total=total, unit="B"))

    return moved
