"""state: the ledger's own verbs, and history."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.problem import Problem, did_you_mean, problem
from lab.core.record import Record
from lab.ledger import generations, lock
from lab.ledger.ledger import Ledger, altered


@contextmanager
def writing(lab: Lab, verb: str) -> Iterator[Ledger]:
    """The ledger for writing, under the lock; stamped at the end."""
    with lock.held(lab.state / "lock", verb), closing(Ledger.write(lab.ledger_path, lab.id, lab.stamps)) as ledger:
        yield ledger
        ledger.stamp()


def record(lab: Lab, address: str) -> Record:
    """One record; a Problem with the nearest address where there is none."""
    found = lab.records.get(Address(address))
    if found is None:
        raise problem(f"`{address}` is not recorded{did_you_mean(address, lab.records)}", do="see `lab state list`")
    return found


def move(lab: Lab, old: str, new: str) -> None:
    """A record has another address; nothing else changes. The YAML is yours to rename."""
    with writing(lab, "state mv") as ledger:
        found = ledger.record(old)
        if found is None:
            raise problem(f"`{old}` is not recorded{did_you_mean(old, lab.records)}", do="see `lab state list`")
        if ledger.record(new) is not None:
            raise problem(f"`{new}` is recorded already", do=f"choose another, or `lab state rm {new}` first")
        try:
            target = Address.parse(new)
        except ValueError as e:
            raise problem(str(e), do="write kind.name") from e
        if target.kind != found.address.kind:
            raise problem(f"a {found.address.kind} cannot become a {target.kind}", do="keep the kind")
        with ledger.transaction():
            ledger.put([replace(found, address=target)])
            ledger.drop([old])
            ledger.log(
                generations.latest(ledger), [(target, "move", f"lab state mv {old}", found.digest, found.digest)]
            )


def forget(lab: Lab, addresses: Sequence[str]) -> None:
    """Records are forgotten; what they describe stays on the machine, no longer ours."""
    with writing(lab, "state rm") as ledger:
        for address in addresses:
            found = ledger.record(address)
            if found is None:
                raise problem(
                    f"`{address}` is not recorded{did_you_mean(address, lab.records)}", do="see `lab state list`"
                )
        with ledger.transaction():
            ledger.drop(addresses)
            ledger.log(generations.latest(ledger), [(a, "destroy", "lab state rm", "", "") for a in addresses])


def backup(lab: Lab, to: Path | None = None) -> Path:
    """A consistent copy of the ledger, taken while others may write; returns where it is."""
    if not lab.ledger_path.exists():
        raise problem("there is no ledger yet", do="run `lab apply` first")
    target = to or lab.state / "backup" / f"ledger-{time.strftime('%Y%m%d-%H%M%S')}.sqlite"
    target.parent.mkdir(parents=True, exist_ok=True)
    # A kill leaves at most one unfinished copy, among what may be deleted, and the next one takes its place.
    temporary = target.with_name(f".{target.name}.tmp") if to else lab.state / UNFINISHED
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(lab.ledger_path)) as source, closing(sqlite3.connect(temporary)) as copy:
        source.backup(copy)
    temporary.replace(target)
    return target


COPIES = 5
LARGE = 128 << 20
"""Bytes from which a ledger is copied once a day instead of after every apply."""


UNFINISHED = "cache/ledger-copy.tmp"


def tidy(lab: Lab) -> None:
    """What a kill left of a copy being made is gone, and empty work folders that could not be removed in their time."""
    (lab.state / UNFINISHED).unlink(missing_ok=True)
    for folder in (lab.state / "work").glob("*"):
        with contextlib.suppress(OSError):
            folder.rmdir()


def keep_copy(lab: Lab) -> None:
    """The newest COPIES of the ledger lie in `state/backup/`; a copy that cannot be made stops nothing."""
    kept = sorted((lab.state / "backup").glob("ledger-*.sqlite"))
    with contextlib.suppress(OSError, sqlite3.Error):
        recent = bool(kept) and time.time() - kept[-1].stat().st_mtime < 86_400
        if lab.ledger_path.stat().st_size < LARGE or not recent:
            backup(lab)
        for old in sorted((lab.state / "backup").glob("ledger-*.sqlite"))[:-COPIES]:
            old.unlink()


def restore(lab: Lab, source: Path | None = None) -> tuple[Path, list[str]]:
    """The newest sound copy (or `source`) is the ledger again; returns it, and what was recorded since that is lost."""
    copies = [source] if source else sorted((lab.state / "backup").glob("ledger-*.sqlite"), reverse=True)
    for copy in copies:
        if not copy.exists():
            raise problem(f"{copy} is not there", do="see state/backup/")
        try:
            with closing(Ledger.read(copy, lab.id)) as candidate:
                if altered(candidate):
                    continue
                kept = candidate.records()
        except Exception:
            if source:
                raise
            continue
        lost = _lost(lab, kept)
        with lock.held(lab.state / "lock", "state restore"):
            if lab.ledger_path.exists():
                lab.ledger_path.replace(lab.ledger_path.with_name(f"ledger-damaged-{int(time.time())}.sqlite"))
            for tail in ("-wal", "-shm"):
                lab.ledger_path.with_name(lab.ledger_path.name + tail).unlink(missing_ok=True)
            shutil.copyfile(copy, lab.ledger_path.with_name("ledger.tmp"))
            lab.ledger_path.with_name("ledger.tmp").replace(lab.ledger_path)
            for stamp in lab.stamps:
                stamp.unlink(missing_ok=True)
        return copy, lost
    raise problem("no sound copy of the ledger is left", do="adopt what is on the machine with `lab import --all`")


def _lost(lab: Lab, kept: dict[Address, Record]) -> list[str]:
    try:
        with closing(sqlite3.connect(f"file:{lab.ledger_path}?mode=ro", uri=True)) as db:
            rows = dict(db.execute("SELECT address, digest FROM resource"))
    except sqlite3.Error:
        return ["what was recorded since cannot be read from the damaged ledger"]
    return sorted(a for a, d in rows.items() if Address(a) not in kept or kept[Address(a)].digest != d)


def check(lab: Lab) -> list[Problem]:
    """What is wrong with the ledger itself: pages, checksums, records of unknown kinds."""
    return [p for found in altered(lab.ledger) for p in found.problems]


def unlock(lab: Lab) -> dict[str, Any] | None:
    """A lock left by another host is removed; returns who held it."""
    return lock.unlock(lab.state / "lock")
