"""Broken: guards of Lab taken away, one by one, to show that the campaigns and the tests would notice.

As a plugin of pytest (`-p tests.faults.broken`) it takes away the one that LAB_FAULTS_BROKEN names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# --- the engine ------------------------------------------------------------------------------------------------------


def no_intent() -> None:
    """Nothing is recorded before it is touched."""
    from lab.apply.carry import Carrier

    Carrier._intend = lambda self, addresses: None  # type: ignore[method-assign]


def no_record() -> None:
    """A finished change is told to the user and not to the ledger."""
    from lab.apply.carry import Carrier

    Carrier._settle = lambda self, finished: None  # type: ignore[method-assign]


def no_begun() -> None:
    """A record forgets what was begun elsewhere."""
    from lab.apply import carry

    carry._begun = lambda deed: deed.before  # type: ignore[assignment, return-value]


def no_journal() -> None:
    """Finished steps are forgotten."""
    from lab.ledger.ledger import Ledger

    Ledger.finished_steps = lambda self, address, digest: {}  # type: ignore[method-assign]


def no_look() -> None:
    """What the steps brought about is recorded as it is, not compared with what was wanted."""
    from lab.apply.carry import Carrier

    Carrier._look = lambda self, address: self.deeds[address].observe()  # type: ignore[method-assign]


def no_stale() -> None:
    """A saved plan is carried out whatever happened since."""
    from lab.plan.plan import Plan

    Plan.digest = lambda self: "one"  # type: ignore[method-assign]


# --- the ledger ------------------------------------------------------------------------------------------------------


def no_lock() -> None:
    """Everybody writes at once."""
    from lab.ledger import lock

    lock.held = lambda path, verb: contextlib.nullcontext("")  # type: ignore[assignment]


def no_other_host() -> None:
    """A lock that another host holds is taken for nobody's."""
    from lab.ledger import lock

    lock.holder = lambda path: None


def no_stamp() -> None:
    """Nobody remembers how far the ledger had come."""
    from lab.ledger import ledger

    ledger.read_stamp = lambda path: None


def no_sum() -> None:
    """Rows carry no checksum."""
    from lab.core.record import Record

    Record.sum = lambda self: ""  # type: ignore[method-assign]


def no_full_sync() -> None:
    """A commit is told before it is on disk."""
    from lab.ledger.sqlite import File

    real = File.write

    def write(self: Any) -> Any:
        found = real(self)
        found.execute("PRAGMA synchronous = OFF")
        return found

    File.write = write  # type: ignore[method-assign]


# --- files and the store ---------------------------------------------------------------------------------------------


def no_rename() -> None:
    """Files are written in place."""
    from lab.adapters import files

    def put(path: Path, data: bytes, *, mode: int | None = None, **owner: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        path.chmod(0o644 if mode is None else mode)

    files.put = put


class _Os:
    def __getattr__(self, name: str) -> Any:
        return (lambda fd: None) if name == "fsync" else getattr(os, name)


def no_sync() -> None:
    """Files take their name before they are on disk."""
    from lab.adapters import files

    files.os = _Os()  # type: ignore[assignment]


def no_sync_of_blobs() -> None:
    """Blobs take their name before they are on disk."""
    from lab.adapters import store

    store.os = _Os()  # type: ignore[assignment]


def no_doubt() -> None:
    """What a failed sync may have lost is taken up again."""
    from lab.adapters.download import _Part

    _Part.sync = lambda self: os.fsync(self.file.fileno())  # type: ignore[method-assign]


def no_undo() -> None:
    """A name that a failed sync may have lost stays."""
    from lab.adapters import store

    store._synced = lambda folder, undo: store.sync(folder)


def no_hash() -> None:
    """What came is not compared with what was declared."""
    from lab.adapters.download import _Part

    _Part.verified = lambda self: self.item.sha256 or self.hash.hexdigest()  # type: ignore[method-assign]


def no_room() -> None:
    """Nobody looks whether it fits on the disk before it is fetched."""
    from lab.adapters import fetch

    fetch._Work.reserve = lambda self, missing: lambda: None  # type: ignore[method-assign]


def no_volume() -> None:
    """A store whose volume is away is taken for an empty one."""
    from lab.core import views

    views.away = lambda world, store, known: None


def no_sweep() -> None:
    """What a kill left in the store stays."""
    from lab.app import gc

    gc.tidy = lambda lab: None


def no_hour() -> None:
    """What another lab is making in a shared store is swept under its feet."""
    from lab.app import gc

    gc.HOUR = -1


def no_exchange() -> None:
    """A view is taken away before the new one is there."""
    from lab.adapters import clone

    def exchange(a: Path, b: Path) -> None:
        aside = b.with_name(f"{b.name}.aside")
        os.rename(b, aside)
        os.rename(a, b)
        os.rename(aside, a)

    clone.exchange = exchange


# --- envs, runs, sweeps, memory --------------------------------------------------------------------------------------


def no_switch() -> None:
    """An env's link is taken away before the new one is there."""
    from lab.adapters import envs

    def switch(link: Path, target: Path) -> None:
        link.unlink(missing_ok=True)
        os.symlink(os.path.relpath(target, link.parent), link)

    envs.switch = switch


def no_pointer() -> None:
    """An experiment does not point to its run before it begins."""
    from lab.adapters import experiments, supervisor

    class _Late:
        def __getattr__(self, name: str) -> Any:
            return (lambda *a: None) if name == "point" else getattr(experiments, name)

    supervisor.experiments = _Late()  # type: ignore[assignment]


def no_lease() -> None:
    """Nobody sees that a run lives."""
    from lab.runs.folder import RunFolder

    RunFolder.held = lambda self: False  # type: ignore[method-assign]


def no_coordinator() -> None:
    """A study is coordinated by everybody at once."""
    from lab.runs import sweep_folder

    sweep_folder.coordinated = lambda folder: contextlib.nullcontext()  # type: ignore[assignment]


def no_queue() -> None:
    """Everybody is let in, whatever memory there is."""
    from lab.adapters import admission
    from lab.core.queueing import Verdict

    admission.decide = lambda waiting, *a: {j.id: Verdict(True) for j in waiting}


def take_away(name: str) -> None:
    """The guard is gone, in this process."""
    found: Callable[[], None] = globals()[name]
    found()


if _NAME := os.environ.get("LAB_FAULTS_BROKEN"):
    take_away(_NAME)
