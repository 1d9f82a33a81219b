"""borg 1.2 to 1.4: repositories, archives and restores; its failures told as problems."""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from lab.adapters.patterns import regex
from lab.adapters.repository import Tool, present
from lab.core.problem import Problems, problem

DAMAGED = ("integrity", "crc", "checksum", "corrupt", "missing chunk", "chunks missing", "errors found", "segment")

_SKELETON = frozenset({"README", "config", "data", "hints", "index", "integrity", "lock", "nonce"})
"""What an `init` makes, as far as a dot or a dash."""
_README = b"This is a Borg Backup repository."
_COMMIT = bytes.fromhex("40f43c25 09000000 02")
"""What ends everything that was saved: borg's entry of a commit, which never varies."""
_FIRST = 1 << 16
"""Bytes that an `init` never comes to."""

M = TypeVar("M", bound=BaseModel)


class _Archive(BaseModel):
    """What borg says of an archive, as far as anything here goes by it."""

    id: str
    name: str
    start: datetime
    comment: str = ""
    stats: dict[str, float] = {}


class _Made(BaseModel):
    """What `borg create` says."""

    archive: _Archive


class _Listed(BaseModel):
    """What `borg list` says."""

    archives: list[_Archive]


@dataclass
class Repository(Tool):
    """One borg repository. An archive's name is its tags and its time: borg knows no tags of its own."""

    program: ClassVar[str] = "borg"
    install: ClassVar[str] = "apt install borgbackup, or brew install borgbackup"

    def init(self) -> bool:
        """Whether the repository had to be made; an existing one must open with the password."""
        if self.local and self._cut_short():
            self.taken_over(lambda: not self._cut_short())
        if self.local and not (Path(self.repo) / "config").exists():
            self.empty()
        elif self.local:
            if not (Path(self.repo) / "config").read_bytes().startswith(b"[repository]"):
                raise problem(f"{self.repo} is no borg repository", do="name an empty folder, or another `tool:`")
            self.run("info", self.repo)
            return False
        try:
            self.run("init", "--encryption", "repokey-blake2", self.repo)
        except Problems as e:
            if "already" not in e.problems[0].why:
                raise
            self.run("info", self.repo)
            return False
        return True

    def _cut_short(self) -> bool:
        """Whether an `init` was begun here that has committed nothing yet: so nobody ever saved anything here. Reads.

        A lock whose holder may live is not passed over.
        """
        place = Path(self.repo)
        names = {re.split("[.-]", p.name)[0] for p in place.iterdir()} if place.is_dir() else set()
        if "README" not in names or names - _SKELETON:
            return False
        said = (place / "README").read_bytes()
        if not said.startswith(_README) and (said or names != {"README"}):
            return False
        segments = [p for p in (place / "data").rglob("*") if p.is_file()]
        if sum(p.stat().st_size for p in segments) > _FIRST or any(_COMMIT in p.read_bytes() for p in segments):
            return False
        for host, pid in _holders(place):
            if host != host_id() or _lives(pid):
                raise _in_use(self.repo, host, pid)
        return True

    def backup(
        self,
        paths: Sequence[str],
        excludes: Sequence[str],
        tags: Sequence[str],
        progress: Callable[[float, float], None],
        at: datetime | None = None,
    ) -> dict[str, Any]:
        """The summary of one new archive, in restic's words."""
        present(paths)

        def hear(line: str) -> None:
            told = _told(line)
            if told.get("type") == "archive_progress":
                progress(float(told.get("original_size", 0)), 0.0)

        when = at or datetime.now().astimezone()
        words = [w for e in excludes for w in ("--exclude", f"re:{regex(e, root='/?')}")]
        words += ["--comment", json.dumps(list(paths)).replace("{", "{{").replace("}", "}}")]
        words += ["--timestamp", when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")]
        archive = f"{self.repo}::{','.join(tags)},{when.isoformat()}"
        # Status 1: some files could not be read; the archive holds the rest.
        status, out, err = self.run(
            "create", "--json", "--progress", *words, "--", archive, *paths, hear=hear, aside=True, fine=(0, 1)
        )
        made = _parsed(_Made, out, self.repo).archive
        return {
            "snapshot_id": made.id,
            "total_files_processed": made.stats.get("nfiles", 0),
            "data_added": made.stats.get("deduplicated_size", 0),
            "total_bytes_processed": made.stats.get("original_size", 0),
            "unread": list(_messages(err))[:20] if status == 1 else [],
        }

    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """Every archive with all these tags, oldest first."""
        said = self.run("list", "--json", "--format", "{comment}", self.repo)[1]
        found = []
        for archive in _parsed(_Listed, said, self.repo).archives:
            if not set(tags) <= set(archive.name.split(",")):
                continue
            try:
                paths = json.loads(archive.comment or "[]")
            except ValueError:
                paths = []
            at = archive.start.astimezone().isoformat()
            found.append(
                {"id": archive.id, "short_id": archive.id[:8], "time": at, "paths": paths, "name": archive.name}
            )
        return sorted(found, key=lambda s: str(s["time"]))

    def forget(self, keep: dict[str, int], tag: str) -> None:
        """Archives beyond `keep` are gone, and what only they held."""
        if not any(keep.values()):
            return
        words = [w for k, v in keep.items() if v for w in (f"--keep-{k}", str(v))]
        self.run("prune", "--glob-archives", f"{tag},*", *words, self.repo)
        self.run("compact", self.repo)

    def unlock(self) -> None:
        """Locks of processes that are no more are gone; a live one's stays.

        borg passes over a dead process's lock on its own machine by itself; another machine's cannot be told.
        """
        if not self.local:
            self.snapshots()
            return
        here = host_id()
        for host, pid in _holders(Path(self.repo)):
            if host != here or _lives(pid):
                raise _in_use(self.repo, host, pid)
        self.run("break-lock", self.repo)

    def check(self, subset: str = "") -> None:
        """The repository is sound. Every segment is read and its checksums compared; with `100%` also decrypted.

        borg cannot read a fraction: a `subset` such as `3/10` reads the segments, which is all of the data.
        """
        self.run("check", *(["--verify-data"] if subset == "100%" else []), self.repo)

    def restore(
        self, snapshot: str, target: Path, include: Sequence[str] = (), progress: Callable[[], None] = lambda: None
    ) -> None:
        """The archive, or what of it is included, lies below `target` under its absolute paths, authenticated."""
        name = next((s["name"] for s in self.snapshots() if s["id"].startswith(snapshot)), "")
        if not name:
            raise problem(f"{self.repo} holds no archive {snapshot}", do="see `lab backup list`")
        # A path that borg knows as a pattern is none here: `pp:` is a path and what lies below it.
        wanted = [f"pp:{path.lstrip('/')}" for path in include]
        self.run(
            "extract", "--progress", f"{self.repo}::{name}", *wanted, cwd=target, aside=True, hear=lambda _: progress()
        )

    def mount(self, folder: str) -> None:
        """The archives can be looked at in `folder` until this is interrupted."""
        self.show("mount", "--foreground", self.repo, folder)

    def command(self, *words: str, password: int) -> list[str]:
        """The whole command line. Pure."""
        limit = ["--upload-ratelimit", str(max(1, self.limit // 1024))] if self.limit else []
        return ["borg", "--log-json", "--lock-wait", "5", *limit, *words]

    def environment(self, password: int) -> Mapping[str, str]:
        """Ours, without what would send borg elsewhere or have it ask."""
        aside = ("BORG_REPO", "BORG_PASSPHRASE", "BORG_PASSCOMMAND", "BORG_NEW_PASSPHRASE", "BORG_KEY_FILE")
        ours = {k: v for k, v in os.environ.items() if k not in aside}
        return {
            **ours,
            "BORG_PASSPHRASE_FD": str(password),
            "BORG_HOST_ID": host_id(),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
            "BORG_EXIT_CODES": "legacy",
        }

    def failed(self, verb: str, status: int, text: str) -> Problems:
        """What borg means: it names its errors. Pure."""
        names = {str(t.get("msgid")) for x in text.splitlines() if (t := _told(x)).get("type") == "log_message"}
        said = list(_messages(text)) or [x for x in text.splitlines() if x.strip()] or ["no reason given"]
        why, low = said[-1].strip().splitlines()[-1][:300], "\n".join(said).lower()
        if names & {"PassphraseWrong", "PasscommandFailure", "NoPassphraseFailure"}:
            return problem(
                f"the password does not open {self.repo}",
                why="borg refuses it",
                do="mend `password:`; nothing was changed",
            )
        if names & {"LockTimeout", "LockFailed", "LockError", "LockErrorT"}:
            return problem(
                f"{self.repo} is in use",
                why=why,
                do="wait for the other backup, or `lab backup unlock` if it is dead",
            )
        if names & {"Repository.DoesNotExist", "Repository.PathPermissionDenied"}:
            return problem(
                f"there is no repository at {self.repo}", why=why, do="mount its volume, or `lab apply` to make it"
            )
        if names & {"Repository.InvalidRepository", "Repository.InvalidRepositoryConfig"}:
            return problem(f"{self.repo} is no borg repository", why=why, do="name an empty folder, or another `tool:`")
        if "Repository.InsufficientFreeSpaceError" in names or "no space left" in low:
            return problem(
                f"the volume of {self.repo} is full",
                why="no space left",
                do="free space or keep less; earlier archives are sound",
            )
        if any(w in low for w in DAMAGED):
            return problem(
                f"{self.repo} is damaged",
                why=why,
                do="restore from another repository; `lab backup check --read-data` says more",
            )
        return problem(f"borg could not {verb} {self.repo}", why=why, do="run `lab backup check`")


def _in_use(repo: str, host: str, pid: int) -> Problems:
    return problem(
        f"{repo} is in use",
        why=f"process {pid} on {host.partition('@')[0]} holds its lock",
        do=f"wait for it; if that machine is gone, `borg break-lock {repo}`",
    )


def host_id() -> str:
    """How borg names this machine in its locks: said to it, for its own guess depends on the resolver."""
    return os.environ.get("BORG_HOST_ID") or f"{socket.gethostname()}@{uuid.getnode()}"


def _parsed(model: type[M], said: str, repo: str) -> M:
    try:
        return model.model_validate_json(said)
    except ValidationError:
        raise problem(
            f"borg does not say what {repo} holds", why=said.strip()[-200:] or "nothing", do="run `lab backup check`"
        ) from None


def _told(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _messages(text: str) -> Iterator[str]:
    """What borg complained of, in its words."""
    for line in text.splitlines():
        told = _told(line)
        if told.get("type") == "log_message" and told.get("levelname") in ("WARNING", "ERROR", "CRITICAL"):
            yield str(told.get("message", "")).strip()


def _holders(repo: Path) -> Iterator[tuple[str, int]]:
    """(host, process) of whoever holds a lock of a local repository."""
    lock = repo / "lock.exclusive"
    for name in sorted(os.listdir(lock)) if lock.is_dir() else ():
        host, _, rest = name.rpartition(".")
        if rest.partition("-")[0].isdigit():
            yield host, int(rest.partition("-")[0])
    try:
        roster = json.loads((repo / "lock.roster").read_text())
        held = [(str(host), int(pid)) for each in roster.values() for host, pid, *_ in each]
    except (OSError, ValueError, TypeError, AttributeError):
        return
    yield from held


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
