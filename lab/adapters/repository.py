"""Repositories of snapshots: what every backup tool answers, and how its program is run."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.step import Stage
from lab.core.steps_host import OpenRepository

QUIET = 30.0
"""Seconds without a change after which nobody makes a repository any more."""
TOOLS = {
    "restic": "lab.adapters.restic",
    "borg": "lab.adapters.borg",
    "time_machine": "lab.adapters.time_machine",
}
"""`tool:` of a backup → the module whose `Repository` drives it."""


def repository(tool: str, repo: str, password: Callable[[], str], **more: Any) -> Tool:
    """A repository driven by the tool a backup declares."""
    made: Tool = importlib.import_module(TOOLS[tool]).Repository(repo, password, **more)
    return made


def perform(step: OpenRepository, stage: Stage) -> Facts:
    """The repository is there and opens; it is made where there is none."""
    place = repository(step.tool, step.repo, lambda: stage.secret(step.password), check_stop=stage.check)
    return {"made": place.init()}


@dataclass
class Tool(ABC):
    """One repository. Its password reaches the program through a pipe: no file, no argument, no environment."""

    program: ClassVar[str] = ""
    install: ClassVar[str] = ""

    repo: str
    password: Callable[[], str]
    check_stop: Callable[[], None] = lambda: None
    limit: int = 0
    """Bytes per second to send at most; 0 for no limit."""
    deadline: float = 0.0
    """`time.monotonic()` at which the program is stopped; 0 for never."""
    index: str = ""
    """The manifest's place in every snapshot, for a tool that keeps none of its own."""

    @abstractmethod
    def init(self) -> bool:
        """Whether the repository had to be made; an existing one must open with the password."""

    @abstractmethod
    def backup(
        self,
        paths: Sequence[str],
        excludes: Sequence[str],
        tags: Sequence[str],
        progress: Callable[[float, float], None],
        at: datetime | None = None,
    ) -> dict[str, Any]:
        """The summary of one new snapshot: `snapshot_id`, `data_added`, `total_bytes_processed`, `unread`, …

        `at` is the time it is to bear, now by default. Patterns are spelled as restic does.
        """

    @abstractmethod
    def snapshots(self, *tags: str) -> list[dict[str, Any]]:
        """Every snapshot with all these tags, oldest first: `{id, short_id, time, paths}`."""

    @abstractmethod
    def forget(self, keep: dict[str, int], tag: str) -> None:
        """Snapshots beyond `keep` are gone, and what only they held."""

    @abstractmethod
    def unlock(self) -> None:
        """Locks of processes that are no more are gone; a live one's stays."""

    @abstractmethod
    def check(self, subset: str = "") -> None:
        """The repository is sound; with `subset` (`3/10`, `100%`) that part of its data is read and hashed as well."""

    @abstractmethod
    def restore(
        self, snapshot: str, target: Path, include: Sequence[str] = (), progress: Callable[[], None] = lambda: None
    ) -> None:
        """The snapshot, or what of it is included, lies below `target` under its absolute paths, verified."""

    @abstractmethod
    def mount(self, folder: str) -> None:
        """The snapshots can be looked at in `folder` until this is interrupted."""

    @property
    def local(self) -> bool:
        """Whether the repository is a folder of this machine."""
        return self.repo.startswith("/")

    def empty(self) -> None:
        """The folder of a new local repository can be made, and nothing else lies there."""
        place = Path(self.repo)
        try:
            if place.exists() and any(place.iterdir()):
                raise problem(
                    f"{self.repo} holds something that is no repository", do="name an empty folder, or another one"
                )
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise problem(
                f"{self.repo} cannot be used", why=e.strerror or str(e), do="check its owner and its volume"
            ) from e

    def taken_over(self, done: Callable[[], bool]) -> None:
        """A repository whose making was cut short, and in which nothing was ever saved, is whole by now or gone.

        Whoever makes it may still be at work, here or on another machine: it is gone only after nothing in it changed
        for as long as any step of that takes.
        """
        place, seen, since = Path(self.repo), frozenset[Any](), time.monotonic()
        while not done():
            self.check_stop()
            now = frozenset((str(p), p.lstat().st_size) for p in place.rglob("*"))
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > QUIET:
                shutil.rmtree(place)
                return
            time.sleep(0.2)

    @abstractmethod
    def command(self, *words: str, password: int) -> list[str]:
        """The whole command line; `password` is the descriptor the password can be read from. Pure."""

    def environment(self, password: int) -> Mapping[str, str]:
        """Ours, without what would send the program elsewhere."""
        return os.environ

    def failed(self, verb: str, status: int, text: str) -> Problems:
        """What the program means by its failure. Pure."""
        return problem(f"{self.program} could not {verb} {self.repo}", why=last(text), do="run `lab backup check`")

    def run(
        self,
        *words: str,
        hear: Callable[[str], None] | None = None,
        fine: Sequence[int] = (0,),
        cwd: Path | None = None,
        aside: bool = False,
    ) -> tuple[int, str, str]:
        """(status, stdout, stderr) of one command; ends it when the apply is to stop or its time is over.

        `hear` is given each line of stdout, or of stderr with `aside`.
        """
        self._there()
        out: list[str] = []
        err: list[str] = []
        with self._password() as read:
            process = subprocess.Popen(
                self.command(*words, password=read), env=self.environment(read), pass_fds=(read,), cwd=cwd,
                text=True, errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip

            def listen(stream: Any, into: list[str], each: Callable[[str], None] | None, keep: bool) -> None:
                for line in stream:
                    if each:
                        each(line)
                    if keep or not each:
                        into.append(line)

            listeners = [
                threading.Thread(target=listen, args=(process.stdout, out, None if aside else hear, False)),
                threading.Thread(target=listen, args=(process.stderr, err, hear if aside else None, True)),
            ]
            for thread in listeners:
                thread.daemon = True
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
            raise self.failed(words[0], process.returncode, "".join(err) or "".join(out))
        return process.returncode, "".join(out), "".join(err)

    def show(self, *words: str) -> None:
        """One command whose output and end are the person's own, such as a mount."""
        self._there()
        with self._password() as read:
            done = subprocess.run(
                self.command(*words, password=read), env=self.environment(read), pass_fds=(read,), check=False
            )
        if done.returncode > 0 and done.returncode < 128:
            raise problem(
                f"{self.program} could not {words[0]} {self.repo}",
                why="it says why above",
                do="`lab restore --to DIR` needs no FUSE",
            )

    def _there(self) -> None:
        if shutil.which(self.program) is None:
            raise problem(f"{self.program} is not installed", why="backups are made with it", do=self.install)

    @contextlib.contextmanager
    def _password(self) -> Iterator[int]:
        read, write = os.pipe()
        try:
            os.write(write, self.password().encode())
            os.close(write)
            yield read
        finally:
            os.close(read)

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


def present(paths: Sequence[str]) -> None:
    """Every source is there: the tools themselves only warn."""
    for path in paths:
        if not os.path.lexists(path):
            raise problem(f"{path} is to be backed up and is not there", do="make it, or take it off `paths`")


def last(text: str) -> str:
    """The line of a program's words that says most."""
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    fatal = [x for x in lines if x.startswith(("Fatal", "error"))]
    return (fatal or lines or ["no reason given"])[-1][:300]
