"""A snapshot's content below a scratch folder: fetched whole, compared with its manifest, and put where it belongs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.adapters.repository import Tool
from lab.app._places import Moved
from lab.app._saved import MANIFEST
from lab.core.problem import problem


@dataclass
class Restored:
    """A snapshot's content below a scratch folder."""

    below: Path
    manifest: dict[str, Any]
    snapshot: str
    pairs: dict[str, Path] = field(default_factory=dict)
    """Where each file belongs → where it lies now."""

    def wrong(self) -> list[str]:
        """What is missing, has another size, leads elsewhere, or is no sound database."""
        out = []
        for path, (size, mtime) in self.manifest["files"].items():
            at = self.pairs.get(path)
            if at is None:
                out += [f"{path} is missing"] * (not self._vanished(path))
            elif at.stat().st_mtime_ns == mtime and at.stat().st_size != size:
                out.append(f"{path} has {at.stat().st_size} bytes, not {size}")
        for path, target in self.manifest.get("links", {}).items():
            at = self.pairs.get(path)
            if at is None and self._vanished(path):
                continue
            if at is None or not at.is_symlink() or os.readlink(at) != target:
                out.append(f"{path} does not lead to {target}")
        for path in self.manifest["databases"]:
            at = self.pairs.get(path)
            if at is None or not _sound(at):
                out.append(f"{path} is no sound database")
        return out

    def _vanished(self, path: str) -> bool:
        """Whether it went while the snapshot was made: the folder that held it was altered between list and copy.

        Where the folder is as it was when it was listed, what is missing was lost.
        """
        known = self.manifest.get("folders", {})
        for folder in map(str, Path(path).parents):
            if folder in known:
                with contextlib.suppress(OSError):
                    # Not every tool keeps more than microseconds.
                    now = (self.below / folder.lstrip("/")).stat().st_mtime_ns
                    return bool(now // 1000 != known[folder] // 1000)
        return False


def _sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def fetch(name: str, repository: Tool, scratch: Path, at: str, moved: Callable[[], None] | None = None) -> Restored:
    """The snapshot of a time, whole and verified, below a scratch folder."""
    snapshot = choose(repository.snapshots(f"backup:{name}"), at)
    scratch.mkdir(parents=True, mode=0o700)
    repository.restore(snapshot["id"], scratch, progress=moved or (lambda: None))
    return opened(scratch, snapshot["short_id"])


def opened(below: Path, snapshot: str) -> Restored:
    """What lies below a folder as a snapshot left it there."""
    found = sorted(below.glob(f"**/staged/*/{MANIFEST}"))
    if not found:
        raise problem(
            "this snapshot was not made by Lab", why="it holds no manifest", do="restore it with the tool that made it"
        )
    staged = found[0].parent
    restored = Restored(below, json.loads(found[0].read_text()), snapshot)
    for path in restored.manifest["databases"]:
        lies = staged / "databases" / path.lstrip("/")
        if lies.exists():
            restored.pairs[path] = lies
    for folder, folders, names in os.walk(below):
        if Path(folder).is_relative_to(staged):
            continue
        for each in (*names, *(f for f in folders if os.path.islink(os.path.join(folder, f)))):
            lies = Path(folder) / each
            restored.pairs["/" + str(lies.relative_to(below))] = lies
    return restored


def choose(found: Sequence[dict[str, Any]], at: str) -> dict[str, Any]:
    """The snapshot an id or a time means; the newest where neither is given."""
    if not found:
        raise problem("there is no snapshot yet", do="make one with `lab backup now`")
    if not at:
        return found[-1]
    for snapshot in found:
        if snapshot["id"].startswith(at) and len(at) >= 4 and not at.startswith("20"):
            return snapshot
    try:
        end = datetime.fromisoformat(f"{at}T23:59:59" if len(at) == 10 else at).astimezone()
    except ValueError as e:
        raise problem(f"`{at}` is neither a time nor a snapshot", do="see `lab backup list`") from e
    before = [s for s in found if made(s) <= end]
    if not before:
        raise problem(
            f"no snapshot is as old as {at}",
            why=f"the oldest is of {found[0]['time'][:16]}",
            do="see `lab backup list`",
        )
    return before[-1]


def made(snapshot: dict[str, Any]) -> datetime:
    """When a snapshot was made."""
    # restic writes nanoseconds, of which Python reads six digits.
    head, _, rest = snapshot["time"].partition(".")
    zone = rest[rest.find("+") :] if "+" in rest else rest[rest.find("-") :] if "-" in rest else "+00:00"
    return datetime.fromisoformat(head + zone if rest else head.replace("Z", "+00:00")).astimezone()


def place(restored: Restored, chosen: Iterable[str], target: Callable[[str], Path], moved: Moved) -> None:
    """What is chosen lies where `target` says, each file put there in one step; links to old places lead to the new."""
    for path in sorted(chosen):
        _move(restored.pairs[path], target(path), path in restored.manifest["databases"], moved)


def _move(lies: Path, target: Path, database: bool, moved: Moved) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if database:  # what an older database had not yet merged must not be read into the restored one
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{target}{suffix}").unlink(missing_ok=True)
        beside = target.with_name(f".{target.name[:80]}.lab-restore")
        beside.unlink(missing_ok=True)
        if lies.is_symlink():
            beside.symlink_to(moved.path(os.readlink(lies)))
        elif lies.stat().st_dev == target.parent.stat().st_dev:
            os.rename(lies, beside)
        else:
            shutil.copy2(lies, beside)
        os.replace(beside, target)
    except OSError as e:
        raise problem(f"{target} cannot be restored", why=e.strerror or str(e), do="mend that and restore again") from e
