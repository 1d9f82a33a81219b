"""Spool: what a run has said travels from its folder to the tracker, while it runs and ever after, by batches.

The run never waits for it. Where the store is slow, gone or damaged, the lines wait in the run's folder; the next
`lab` command or `lab track sync` ships them.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
from pathlib import Path

from lab.adapters import mlflow_local
from lab.adapters.mlflow_local import Unready
from lab.runs.folder import RunFolder, put

EVERY = 1.0
"""Seconds between two shipments of a living run."""

PATIENCE = 0.3
"""Seconds a run's start may wait for a store that somebody else is writing to."""


class Shipper:
    """Ships one run from its supervisor."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        tracker = folder.spec.get("tracker", {})
        self.db = Path(tracker["db"])
        self._over = threading.Event()
        self._gathering = threading.Lock()
        self._thread = threading.Thread(target=self._ship, daemon=True)
        if not self.db.exists():
            return
        with contextlib.suppress(Unready):
            mlflow_local.begin(self.db, folder, PATIENCE)

    def start(self) -> None:
        """From now on it ships by itself."""
        self._thread.start()

    def _ship(self) -> None:
        while not self._over.wait(EVERY):
            self.gather()
            self._once()

    def gather(self) -> None:
        """What the program logged by plain MLflow calls is in the run's folder, where its end is judged."""
        from lab.adapters import gathered

        try:
            with self._gathering:
                gathered.gather(self.db, self.folder)
        except Exception as e:
            with contextlib.suppress(OSError):
                put(self.folder / "tracking.log", f"{type(e).__name__}: {e}\n")

    def end(self) -> None:
        """What is left is shipped, if the store takes it."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        self._once()

    def _once(self) -> None:
        try:
            ship(self.folder, self.db)
        except Exception as e:
            with contextlib.suppress(OSError):
                put(self.folder / "tracking.log", f"{type(e).__name__}: {e}\n")


def ship(folder: RunFolder, db: Path) -> int:
    """The store holds what the run has said so far, and its end if it has one; raises Unready. One at a time."""
    with open(folder / "ship.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mlflow_local.prepare(db)
        if not folder.read("shipped.json").get("begun"):
            mlflow_local.begin(db, folder)
            folder.write("shipped.json", {**folder.read("shipped.json"), "begun": True})
        count = mlflow_local.ship(db, folder)
        ended = folder.result.get("ended")
        if ended and folder.read("shipped.json").get("finished") != ended:
            mlflow_local.finish(db, folder)
            folder.write("shipped.json", {**folder.read("shipped.json"), "finished": ended})
        remote = str(folder.spec.get("tracker", {}).get("uri") or "")
        if remote.startswith(("http://", "https://")):
            from lab.adapters import mlflow_remote

            mlflow_remote.feed(folder, db, remote)
        if ended and folder.spec.get("tracker", {}).get("wandb"):
            from lab.adapters import wandb_offline

            wandb_offline.feed(folder, db.parents[1])
        return count


def pending(folder: RunFolder) -> bool:
    """Whether anything of the run is not in the store yet. Reads."""
    sent = folder.read("shipped.json")
    if folder.result and sent.get("finished") != folder.result.get("ended"):
        return True
    remote = str(folder.spec.get("tracker", {}).get("uri") or "")
    if remote and folder.result and folder.read("remote.json").get("ended") != folder.result.get("ended"):
        return True
    if folder.spec.get("tracker", {}).get("wandb") and folder.result:
        from lab.adapters import wandb_offline

        if not wandb_offline.written(folder):
            return True
    return any(_size(folder / n) > int(sent.get(n, 0)) for n in ("metrics.jsonl", "system.jsonl", "events.jsonl"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
