"""restic: repositories, snapshots and restores; its failures told as problems."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lab.adapters.repository import Tool, last, present
from lab.core.problem import Problems, problem

_SKELETON = frozenset({"config", "data", "index", "keys", "locks", "snapshots"})
"""What an `init` makes."""


class _Snapshot(BaseModel):
    """What restic says of a snapshot, as far as anything here goes by it."""

    model_config = ConfigDict(extra="allow")
    time: str
    id: str
    short_id: str
    tags: list[str] | None = None
    paths: list[str] = []


@dataclass
class Repository(Tool):
    """One restic repository."""

    program: ClassVar[str] = "restic"
    install: ClassVar[str] = "apt install restic, or brew install restic"

    cache: Path | None = None

    def init(self) -> bool:
        """Whether the repository had to be made; an existing one must open with the password."""
        if self.local and (Path(self.repo) / "config").exists():
            self.run("cat", "config")
            return False
        if self.local:
            if self._begun():
                return self.init()
            self.empty()
        try:
            self.run("init")
        except Problems as e:
            if "already" not in e.problems[0].why:
                raise
            self.run("cat", "config")
            return False
        return True

    def _begun(self) -> bool:
        """Whether an `init` that nobody waits for was found here: it has finished by now, or what it left is gone.

        restic writes its config last: without one and without data, nothing was ever saved there.
        """
        place = Path(self.repo)
        if not (place / "keys").is_dir() or {p.name for p in place.iterdir()} - _SKELETON:
            return False
        if any(p.is_file() for name in _SKELETON - {"config", "keys"} for p in (place / name).rglob("*")):
            return False
        self.taken_over((place / "config").exists)
        return True

    def backup(
        self,
        paths: Sequence[str],
        excludes: Sequence[str],
        tags: Sequence[str],
        progress: Callable[[float, float], None],
        at: datetime | None = None,
    ) -> dict[str, Any]:
        """The summary of one new snapshot: `snapshot_id`, `files_new`, `data_added`, `total_bytes_processed`, …

        `at` is the time it is to bear, now by default.
        """
        present(paths)
        self.unlock()
        summary: dict[str, Any] = {}

        def hear(line: str) -> None:
            with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
                told = json.loads(line)
                if not isinstance(told, dict):
                    return
                if told.get("message_type") == "status":
                    progress(float(told.get("bytes_done", 0)), float(told.get("total_bytes", 0)))
                elif told.get("message_type") == "summary":
                    summary.update(told)

        words = [w for e in excludes for w in ("--exclude", e)] + [w for t in tags for w in ("--tag", t)]
        words += ["--time", at.astimezone().strftime("%Y-%m-%d %H:%M:%S")] if at else []
        # Status 3: some files could not be read; the snapshot holds the rest.
        status, _, err = self.run("backup", "--json", "--host", "lab", *words, "--", *paths, hear=hear, fine=(0, 3))
        if not summary:
            raise problem("the backup made no snapshot", why=last(err), do="run `lab backup check`")
        summary["unread"] = [x for x in err.splitlines() if x.strip()][:20] if status == 3 else []
        return summary

    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """Every snapshot with all these tags, oldest first."""
        words = ["--tag", ",".join(tags)] if tags else []
        said = self.run("snapshots", "--json", "--no-lock", *words)[1]
        try:
            found = TypeAdapter(list[_Snapshot] | None).validate_json(said or "[]") or []
        except ValidationError:
            raise problem(
                f"restic does not list the snapshots of {self.repo}", why=last(said)[:200], do="run `lab backup check`"
            ) from None
        return sorted((s.model_dump() for s in found), key=lambda s: str(s["time"]))

    def forget(self, keep: dict[str, int], tag: str) -> None:
        """Snapshots beyond `keep` are gone, and what only they held."""
        if not any(keep.values()):
            return
        self.unlock()
        words = [w for k, v in keep.items() if v for w in (f"--keep-{k}", str(v))]
        self.run("forget", "--tag", tag, "--group-by", "tags", "--prune", *words)

    def unlock(self) -> None:
        """Locks of processes that are no more are gone; a live one's stays."""
        self.run("unlock")

    def check(self, subset: str = "") -> None:
        """The repository is sound; with `subset` (`3/10`, `100%`) that part of its data is read and hashed as well."""
        self.unlock()
        words = [] if not subset else ["--read-data"] if subset == "100%" else [f"--read-data-subset={subset}"]
        self.run("check", *words)

    def restore(
        self, snapshot: str, target: Path, include: Sequence[str] = (), progress: Callable[[], None] = lambda: None
    ) -> None:
        """The snapshot, or what of it is included, lies below `target` under its absolute paths, verified."""
        words = [w for path in include for w in ("--include", path)]
        self.run("restore", snapshot, "--target", str(target), "--verify", *words, hear=lambda line: progress())

    def mount(self, folder: str) -> None:
        """The snapshots can be looked at in `folder` until this is interrupted."""
        self.show("mount", folder)

    def command(self, *words: str, password: int) -> list[str]:
        """The whole command line; `password` is the descriptor the password can be read from. Pure."""
        limit = ["--limit-upload", str(max(1, self.limit // 1024))] if self.limit else []
        cache = ["--cache-dir", str(self.cache)] if self.cache else []
        return ["restic", "--repo", self.repo, "--password-file", f"/dev/fd/{password}", *cache, *limit, *words]

    def environment(self, password: int) -> Mapping[str, str]:
        """Ours, without what would send restic elsewhere; a REST server's user and password come from there."""
        return {k: v for k, v in os.environ.items() if not k.startswith("RESTIC_") or k.startswith("RESTIC_REST_")}

    def failed(self, verb: str, status: int, text: str) -> Problems:
        """What restic means; versions before 0.17 say it in words only."""
        low = text.lower()
        if status == 12 or "wrong password" in low:
            return problem(
                f"the password does not open {self.repo}",
                why="restic refuses it",
                do="mend `password:`; nothing was changed",
            )
        if status == 11 or "already locked" in low:
            who = next((x.strip() for x in text.splitlines() if "locked" in x), "")
            return problem(
                f"{self.repo} is in use",
                why=who[:200],
                do="wait for the other backup, or `lab backup unlock` if it is dead",
            )
        if status == 10 or "is there a repository" in low or "unable to open config file" in low:
            return problem(
                f"there is no repository at {self.repo}",
                why=last(text),
                do="mount its volume, or `lab apply` to make it",
            )
        if "no space left" in low:
            return problem(
                f"the volume of {self.repo} is full",
                why="no space left",
                do="free space or keep less; earlier snapshots are sound",
            )
        if any(
            w in low
            for w in (
                "ciphertext verification failed",
                "hash mismatch",
                "does not match id",
                "repository contains errors",
                "invalid data",
                "pack ",
                "unexpected eof",
            )
        ):
            return problem(
                f"{self.repo} is damaged",
                why=last(text),
                do="restore from another repository; `lab backup check --read-data` says more",
            )
        return super().failed(verb, status, text)
