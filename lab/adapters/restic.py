"""restic: repositories, snapshots and restores; its failures told as problems."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.step import Stage
from lab.core.steps_host import OpenRepository

OLD = {10: "Is there a repository", 11: "already locked", 12: "wrong password"}


def open_repository(step: OpenRepository, stage: Stage) -> Facts:
    """The repository is there and opens; it is made where there is none."""
    repository = Repository(step.repo, lambda: stage.secret(step.password), stage.check)
    return {"made": repository.init()}


class _Snapshot(BaseModel):
    """What restic says of a snapshot, as far as anything here goes by it."""

    model_config = ConfigDict(extra="allow")
    time: str
    id: str
    short_id: str
    tags: list[str] | None = None
    paths: list[str] = []


@dataclass
class Repository:
    """One restic repository. The password reaches restic through a pipe: no file, no argument, no environment."""

    repo: str
    password: Callable[[], str]
    check_stop: Callable[[], None] = lambda: None
    limit: int = 0
    """Bytes per second to send at most; 0 for no limit."""
    deadline: float = 0.0
    """`time.monotonic()` at which restic is stopped; 0 for never."""
    cache: Path | None = None
    _options: list[str] = field(default_factory=list)

    def init(self) -> bool:
        """Whether the repository had to be made; an existing one must open with the password."""
        if self.local and (Path(self.repo) / "config").exists():
            self.run("cat", "config")
            return False
        if self.local:
            place = Path(self.repo)
            if place.exists() and any(place.iterdir()):
                raise problem(
                    f"{self.repo} holds something that is no repository", do="name an empty folder, or another one"
                )
            with _readable(self.repo):
                place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.run("init")
        except Problems as e:
            if "already" not in e.problems[0].why:
                raise
            self.run("cat", "config")
            return False
        return True

    @property
    def local(self) -> bool:
        """Whether the repository is a folder of this machine."""
        return self.repo.startswith("/")

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
        for path in paths:
            if not os.path.lexists(path):
                raise problem(f"{path} is to be backed up and is not there", do="make it, or take it off `paths`")
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
            raise problem("the backup made no snapshot", why=_last(err), do="run `lab backup check`")
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
                f"restic does not list the snapshots of {self.repo}", why=_last(said)[:200], do="run `lab backup check`"
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
        with self._password() as read:
            subprocess.run(
                self._command("mount", folder, password=read), env=_environment(), pass_fds=(read,), check=False
            )

    @contextlib.contextmanager
    def _password(self) -> Iterator[int]:
        read, write = os.pipe()
        try:
            os.write(write, self.password().encode())
            os.close(write)
            yield read
        finally:
            os.close(read)

    def _command(self, *words: str, password: int) -> list[str]:
        limit = ["--limit-upload", str(max(1, self.limit // 1024))] if self.limit else []
        cache = ["--cache-dir", str(self.cache)] if self.cache else []
        return ["restic", "--repo", self.repo, "--password-file", f"/dev/fd/{password}", *cache, *limit, *words]

    def run(
        self, *words: str, hear: Callable[[str], None] | None = None, fine: Sequence[int] = (0,)
    ) -> tuple[int, str, str]:
        """(status, stdout, stderr) of one restic command; ends it when the apply is to stop or its time is over."""
        if shutil.which("restic") is None:
            raise problem(
                "restic is not installed",
                why="backups are made with it",
                do="apt install restic, or brew install restic",
            )
        out: list[str] = []
        err: list[str] = []
        with self._password() as read:
            process = subprocess.Popen(
                self._command(*words, password=read), env=_environment(), pass_fds=(read,), text=True, errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

            def listen(stream: Any, into: list[str], each: Callable[[str], None] | None) -> None:
                for line in stream:
                    if each:
                        each(line)
                    else:
                        into.append(line)

            listeners = [
                threading.Thread(target=listen, args=(process.stdout, out, hear), daemon=True),
                threading.Thread(target=listen, args=(process.stderr, err, None), daemon=True),
            ]
            for thread in listeners:
                thread.start()
            try:
                self._wait(process)
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                for thread in listeners:
                    thread.join(5)
        if process.returncode not in fine:
            raise self._problem(words[0], process.returncode, "".join(err) or "".join(out))
        return process.returncode, "".join(out), "".join(err)

    def _wait(self, process: subprocess.Popen[str]) -> None:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
                return
            self.check_stop()
            if self.deadline and time.monotonic() > self.deadline:
                raise problem(
                    "the backup took longer than it may", do="raise `hours:`, or run it again: it goes on where it was"
                )

    def _problem(self, verb: str, status: int, text: str) -> Problems:
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
                why=_last(text),
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
                why=_last(text),
                do="restore from another repository; `lab backup check --read-data` says more",
            )
        return problem(f"restic could not {verb} {self.repo}", why=_last(text), do="run `lab backup check`")


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise problem(f"{what} cannot be used", why=e.strerror or str(e), do="check its owner and its volume") from e


def _environment() -> dict[str, str]:
    """Ours, without what would send restic elsewhere."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RESTIC_")}


def _last(text: str) -> str:
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    fatal = [x for x in lines if x.startswith(("Fatal", "error"))]
    return (fatal or lines or ["no reason given"])[-1][:300]
