"""Time Machine: its snapshots through tmutil; it keeps, thins and encrypts as it is set, not as Lab says."""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from lab.adapters.patterns import plain
from lab.adapters.repository import Tool, present
from lab.core.facts import digest
from lab.core.problem import Problems, problem

STAMP = re.compile(r"(\d{4}-\d\d-\d\d-\d{6})(?:\.backup)?$")


@dataclass
class Repository(Tool):
    """One destination of Time Machine, by the volume it is mounted at."""

    program: ClassVar[str] = "tmutil"
    install: ClassVar[str] = "use `tool: restic`: Time Machine is part of macOS only"

    def init(self) -> bool:
        """False: a destination is chosen by the person; it must be one of this machine's."""
        said = self.run("destinationinfo", "-X")[1]
        try:
            found = [str(d.get("MountPoint", "")) for d in plistlib.loads(said.encode()).get("Destinations", ())]
        except (plistlib.InvalidFileException, ValueError):
            found = []
        if self.repo not in found:
            raise problem(
                f"{self.repo} is no destination of Time Machine",
                why=f"it knows {', '.join(f for f in found if f) or 'none that is mounted'}",
                do=f"sudo tmutil setdestination -a {self.repo}",
            )
        return False

    def backup(
        self,
        paths: Sequence[str],
        excludes: Sequence[str],
        tags: Sequence[str],
        progress: Callable[[float, float], None],
        at: datetime | None = None,
    ) -> dict[str, Any]:
        """The summary of one new snapshot of the whole machine; none of `paths` may be kept out of it.

        A path is marked as left out, once, for every later snapshot; what the staged copies stand for is not marked:
        a live database stays in the person's own snapshots.
        """
        present(paths)
        staged = Path(self.index).parent / "databases"
        kept = {str(p).removeprefix(str(staged)) for p in staged.rglob("*") if p.is_file()}
        for path in sorted({plain(e) for e in excludes}):
            live = any(path.removesuffix(s) in kept for s in ("", "-wal", "-shm", "-journal"))
            if path and not live and os.path.lexists(path):
                self.run("addexclusion", path)
        for path in paths:
            if "[Excluded]" in self.run("isexcluded", path)[1]:
                raise problem(
                    f"{path} is kept out of Time Machine", why="it is marked so", do=f"tmutil removeexclusion {path}"
                )
        self.run("startbackup", "--block", "--destination", self._destination())
        made = Path(self.run("latestbackup", "-m")[1].strip())
        return {"snapshot_id": digest(_stamp(str(made))), "unread": []}

    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """Every snapshot of the destination that holds this backup's manifest, oldest first."""
        found = []
        for line in self.run("listbackups", "-m", "-d", self.repo)[1].splitlines():
            stamp, lies = _stamp(line.strip()), self._within(line.strip())
            if not stamp or not lies:
                continue
            at = datetime.strptime(stamp, "%Y-%m-%d-%H%M%S").astimezone().isoformat()
            paths = json.loads((lies / self.index.lstrip("/")).read_text())["paths"]
            found.append(
                {"id": digest(stamp), "short_id": digest(stamp)[:8], "time": at, "paths": paths, "lies": str(lies)}
            )
        return sorted(found, key=lambda s: str(s["time"]))

    def forget(self, keep: dict[str, int], tag: str) -> None:
        """Nothing: Time Machine thins by itself, and `keep:` is refused where it is declared."""

    def unlock(self) -> None:
        """Nothing: Time Machine holds no lock that outlives it."""

    def check(self, subset: str = "") -> None:
        """The newest snapshot is as Time Machine's checksums say."""
        newest = self._newest()
        self.run("verifychecksums", newest["lies"])

    def restore(
        self, snapshot: str, target: Path, include: Sequence[str] = (), progress: Callable[[], None] = lambda: None
    ) -> None:
        """The snapshot's files that its manifest names, or those included, lie below `target`."""
        found = [s for s in self.snapshots() if s["id"] == snapshot]
        if not found:
            raise problem(f"{self.repo} holds no snapshot {snapshot}", do="see `lab backup list`")
        lies = Path(found[0]["lies"])
        staged = str(Path(self.index).parent)
        named = json.loads((lies / self.index.lstrip("/")).read_text())
        for path in include or [*found[0]["paths"], staged]:
            to = target / path.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            self.run("restore", str(lies / path.lstrip("/")), str(to))
            progress()
        # The snapshot is of the whole machine: what the manifest does not name was left out, live databases among it.
        wanted = {*named["files"], *named.get("links", ())}
        for folder, folders, names in os.walk(target):
            for name in (*names, *(f for f in folders if os.path.islink(os.path.join(folder, f)))):
                path = "/" + str((Path(folder) / name).relative_to(target))
                if path not in wanted and not path.startswith(staged + "/"):
                    (Path(folder) / name).unlink()

    def mount(self, folder: str) -> None:
        """Never: the Finder shows the snapshots."""
        raise problem(
            "Time Machine's snapshots are not mounted by Lab", why="the Finder shows them", do=f"open {self.repo}"
        )

    def command(self, *words: str, password: int) -> list[str]:
        """The whole command line. Pure."""
        return ["tmutil", *words]

    def failed(self, verb: str, status: int, text: str) -> Problems:
        """What tmutil means. Pure."""
        if "full disk access" in text.lower() or "operation not permitted" in text.lower():
            return problem(
                "Time Machine does not let Lab in",
                why="macOS asks for Full Disk Access",
                do="System Settings → Privacy & Security → Full Disk Access: add your terminal and Lab's Python",
            )
        return super().failed(verb, status, text)

    def _destination(self) -> str:
        said = plistlib.loads(self.run("destinationinfo", "-X")[1].encode())
        return next((str(d["ID"]) for d in said.get("Destinations", ()) if d.get("MountPoint") == self.repo), "")

    def _newest(self) -> dict[str, Any]:
        found = self.snapshots()
        if not found:
            raise problem("there is no snapshot yet", do="make one with `lab backup now`")
        return found[-1]

    def _within(self, snapshot: str) -> Path | None:
        """The root of the volume in a snapshot that holds the manifest: `…/STAMP.backup/Macintosh HD - Data`."""
        for volume in sorted(Path(snapshot).glob("*")) if snapshot else ():
            if (volume / self.index.lstrip("/")).is_file():
                return volume
        return None

    @contextlib.contextmanager
    def _password(self) -> Iterator[int]:
        """No password: Time Machine asks the keychain itself."""
        read = os.open(os.devnull, os.O_RDONLY)
        try:
            yield read
        finally:
            os.close(read)


def _stamp(path: str) -> str:
    found = STAMP.search(path.rstrip("/"))
    return found[1] if found else ""
