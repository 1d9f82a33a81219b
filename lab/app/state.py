"""state: the ledger's own verbs, and history."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.problem import Problem, Problems, did_you_mean, problem
from lab.core.record import Record
from lab.ledger import generations, lock, text
from lab.ledger.ledger import Ledger, altered
from lab.ledger.sqlite import File


@contextmanager
def writing(lab: Lab, verb: str) -> Iterator[Ledger]:
    """The ledger for writing, under the lock; stamped at the end."""
    with lab.alone(verb), closing(Ledger.write(lab.kept, lab.id, lab.stamps)) as ledger:
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
    target = to or _newest(lab.state / "backup")
    # A kill leaves at most one unfinished copy, among what may be deleted, and the next one takes its place.
    _save(lab, target, target.with_name(f".{target.name}.tmp") if to else lab.state / UNFINISHED)
    return target


def _newest(folder: Path) -> Path:
    """The name of a copy made now: later than every other's, also where the clock was set back behind them."""
    name, last = f"ledger-{time.strftime(MOMENT)}", max((p.stem for p in folder.glob("ledger-*.sqlite")), default="")
    if name < last:
        with contextlib.suppress(ValueError):
            after = datetime.strptime(last, f"ledger-{MOMENT}") + timedelta(seconds=1)
            name = f"ledger-{after.strftime(MOMENT)}"
    return folder / f"{name}.sqlite"


def _save(lab: Lab, target: Path, temporary: Path) -> None:
    with lab.kept.clear():
        if lab.kept.state():
            raise problem("there is no ledger yet", do="run `lab apply` first")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        lab.kept.save(temporary)
        temporary.chmod(0o600)
        temporary.replace(target)


@contextmanager
def copied(lab: Lab) -> Iterator[Path]:
    """A copy of the ledger as an SQLite file, for as long as it is looked at."""
    with TemporaryDirectory(prefix="lab-ledger-") as folder:
        _save(lab, Path(folder) / "ledger.sqlite", Path(folder) / "unfinished")
        yield Path(folder) / "ledger.sqlite"


def export(lab: Lab) -> Iterator[str]:
    """The ledger as lines of JSON, with a checksum at the end: to read, to compare, to move to another place."""
    with copied(lab) as file:
        yield from text.export(file)


def take(lab: Lab, source: Path) -> tuple[int, list[str]]:
    """What `lab state export` wrote is the ledger; returns its records' number, and what was recorded and is lost."""
    with TemporaryDirectory(prefix="lab-ledger-") as folder:
        file = Path(folder) / "ledger.sqlite"
        try:
            with open(source, encoding="utf-8") as lines:
                text.load(lines, file, str(source))
        except (OSError, UnicodeDecodeError) as e:
            raise problem(f"{source} cannot be read", why=getattr(e, "strerror", None) or "it is not text") from e
        with closing(Ledger.read(File(file), lab.id)) as candidate:
            if wrong := altered(candidate):
                raise wrong[0]
            kept = candidate.records()
        return len(kept), _replace(lab, file, kept, "state import")


COPIES = 5
LARGE = 128 << 20
"""Bytes from which a ledger is copied once a day instead of after every apply."""


UNFINISHED = "cache/ledger-copy.tmp"
MOMENT = "%Y%m%d-%H%M%S"


def tidy(lab: Lab) -> None:
    """What a kill left of a copy being made is gone, and empty work folders that could not be removed in their time."""
    (lab.state / UNFINISHED).unlink(missing_ok=True)
    for folder in (lab.state / "work").glob("*"):
        with contextlib.suppress(OSError):
            folder.rmdir()


def keep_copy(lab: Lab) -> None:
    """The newest COPIES of the ledger lie in `state/backup/`; a copy that cannot be made stops nothing."""
    kept = sorted((lab.state / "backup").glob("ledger-*.sqlite"))
    with contextlib.suppress(OSError, sqlite3.Error, Problems):
        recent = bool(kept) and abs(time.time() - kept[-1].stat().st_mtime) < 86_400
        if not recent or kept[-1].stat().st_size < LARGE:
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
            with closing(Ledger.read(File(copy), lab.id)) as candidate:
                if altered(candidate):
                    continue
                kept = candidate.records()
        except Exception:
            if source:
                raise
            continue
        return copy, _replace(lab, copy, kept, "state restore")
    raise problem("no sound copy of the ledger is left", do="adopt what is on the machine with `lab import --all`")


def _replace(lab: Lab, source: Path, kept: Mapping[Address, Record], verb: str) -> list[str]:
    """The SQLite file at `source` is the ledger; returns what was recorded and is not in it."""
    with lab.alone(verb):
        lost = _lost(lab, kept)
        with lab.kept.clear():
            lab.kept.take(source)
        for stamp in lab.stamps:
            stamp.unlink(missing_ok=True)
    return lost


def _lost(lab: Lab, kept: Mapping[Address, Record]) -> list[str]:
    with contextlib.suppress(Problems, ValueError):
        with closing(Ledger.read(lab.kept, "")) as ledger:
            rows = ledger.sql("SELECT address, digest FROM resource")
        return sorted(a for a, d in rows if Address(a) not in kept or kept[Address(a)].digest != d)
    return ["what was recorded since cannot be read from the damaged ledger"]


def check(lab: Lab) -> list[Problem]:
    """What is wrong with the ledger itself: pages, checksums, records of unknown kinds."""
    return [p for found in altered(lab.ledger) for p in found.problems]


def unlock(lab: Lab) -> dict[str, Any] | None:
    """A lock left by another host is removed; returns who held it."""
    return lock.unlock(lab.state / "lock")
