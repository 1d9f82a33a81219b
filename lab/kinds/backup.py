"""backup: snapshots of what cannot be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from lab.core.block import Block
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.kind import Context, Declaration
from lab.core.problem import Unknown
from lab.core.schedule import PATTERN
from lab.core.secret import Place, Secret
from lab.core.stages import short
from lab.core.step import Remove, Step, Write
from lab.core.steps_host import OpenRepository, Schedule
from lab.core.units import parse_size
from lab.core.world import World

Class = Literal["conf", "state", "experiments", "datasets", "models"]
Tool = Literal["restic", "borg", "time_machine"]
SET_BY_MACOS = {
    "password": "System Settings encrypts the disk",
    "keep": "it thins by itself: hourly for a day, daily for a month, weekly until the disk is full",
    "also": "declare one backup for each disk",
    "upload": "",
    "hours": "",
}
"""What Time Machine leaves nobody to say, and why."""
REMOTE = ("sftp:", "rest:", "s3:", "b2:", "azure:", "gs:", "swift:", "rclone:")


class Keep(Block):
    """How many snapshots stay; zero everywhere keeps all."""

    last: int = Field(default=0, ge=0)
    """The newest."""
    hourly: int = Field(default=0, ge=0)
    """One for each of the last hours."""
    daily: int = Field(default=7, ge=0)
    """One for each of the last days."""
    weekly: int = Field(default=4, ge=0)
    """One for each of the last weeks."""
    monthly: int = Field(default=12, ge=0)
    """One for each of the last months."""
    yearly: int = Field(default=0, ge=0)
    """One for each of the last years."""


class Backup(Declaration):
    """A repository of snapshots, what goes into it, and the timer that fills and thins it.

        backup/nightly.yaml:  repo: /Volumes/cold/restic   password: keychain:restic   every: "03:30"

    Destroying a backup removes its timer; its snapshots stay: data outlives the declaration that made it.
    """

    kind: ClassVar[str] = "backup"

    tool: Tool = "restic"
    """What makes the snapshots: `restic`, `borg`, or `time_machine`, whose disk is then `repo`."""
    include: tuple[Class, ...] = ("conf", "state")
    """Parts of the lab: `conf` (with locks), `state` (ledger, runs), `experiments` (runs), `datasets`, `models`."""
    paths: tuple[str, ...] = ()
    """Further files and folders."""
    exclude: tuple[str, ...] = ()
    """Patterns, spelled as restic does whatever the tool, that are left out."""
    repo: Place = Field(min_length=1)
    """Where the snapshots go: a folder; `sftp:`, `rest:`, `s3:` … (restic) or `ssh://` (borg); Time Machine's disk."""
    also: tuple[Place, ...] = ()
    """Further repositories that hold the same, with the same password."""
    password: Secret | None = None
    """What encrypts the repositories. Without it nothing can be restored: keep it somewhere else too.
    restic and borg need it; Time Machine takes none."""
    every: str = ""
    """When it runs by itself: `hourly`, `daily`, `weekly`, `monthly`, `03:30` or `sun 04:00`; empty: when asked."""
    keep: Keep = Keep()
    """How many snapshots stay."""
    large: str = "100MB"
    """From this size on, a file that can be fetched again is recorded by source and hash instead of copied."""
    copy_large: bool = False
    """Copy large files even where they can be fetched again."""
    upload: str = ""
    """The most to send per second, `10MB`."""
    hours: float = Field(default=0, ge=0)
    """The longest one backup may take; 0 for no limit."""
    drill: str = "weekly"
    """How often a restore is really tried: as `every`; empty for never."""
    alert: int = Field(default=3, ge=1)
    """Days without a good snapshot after which `lab status` and `lab doctor` complain."""

    @field_validator("every", "drill")
    @classmethod
    def _schedule(cls, value: str) -> str:
        import re

        if value and not re.fullmatch(PATTERN, value):
            raise ValueError("expected hourly, daily, weekly, monthly, 03:30 or sun 04:00")
        return value

    @field_validator("large", "upload")
    @classmethod
    def _size(cls, value: str) -> str:
        if value:
            parse_size(value)
        return value

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        yield from self._time_machine(context) if self.tool == "time_machine" else self._encrypted()
        for repo in (self.repo, *self.also):
            place = self.place(repo, context)
            for path in self.paths:
                if place and (place == context.path(path) or place.startswith(context.path(path).rstrip("/") + "/")):
                    yield f"the repository {repo} lies inside {path}, which it backs up", "repo", "put it elsewhere"

    def _encrypted(self) -> Iterator[tuple[str, str, str]]:
        if self.password is None:
            yield f"{self.tool} encrypts with a password, and none is named", "password", "`password: keychain:ITEM`"
        for repo in (self.repo, *self.also):
            wrong = repo.startswith(REMOTE) if self.tool == "borg" else repo.startswith("ssh://")
            if wrong:
                do = "borg reaches `ssh://host/path`" if self.tool == "borg" else "restic reaches `sftp:host:/path`"
                yield f"{self.tool} does not know repositories such as {repo}", "repo", do

    def _time_machine(self, context: Context) -> Iterator[tuple[str, str, str]]:
        if not context.host.platform.startswith("osx"):
            yield "Time Machine is part of macOS only", "tool", "`tool: restic`, or `tool: borg`"
        for field, why in SET_BY_MACOS.items():
            if field in self.model_fields_set:
                yield (
                    f"Time Machine takes no `{field}`" + (f": {why}" if why else ""),
                    field,
                    f"remove `{field}`, or use `tool: restic`",
                )
        for pattern in self.exclude:
            if not pattern.startswith(("/", "~")) or any(c in pattern for c in "*?["):
                yield f"Time Machine leaves out paths, no patterns such as {pattern}", "exclude", "give whole paths"

    def remote(self, repo: str) -> bool:
        """Whether a repository lies on another machine. Pure."""
        return repo.startswith("ssh://" if self.tool == "borg" else REMOTE)

    def place(self, repo: str, context: Context) -> str:
        """The folder of a local repository; empty for a remote one. Pure."""
        return "" if self.remote(repo) else context.path(repo)

    def settings(self, context: Context) -> dict[str, Any]:
        """What a backup run goes by: kept beside the ledger, so that what was applied is what runs. Pure."""
        tm = self.tool == "time_machine"
        apart: dict[str, Any] = {"tool": self.tool} if self.tool != "restic" else {}
        if tm:
            apart["index"] = f"{context.state}/staged/{context.address.partition('.')[2]}/manifest.json"
        return {
            **apart,
            "repos": [self.place(r, context) or r for r in (self.repo, *self.also)],
            "include": sorted(self.include),
            "paths": sorted(context.path(p) for p in self.paths),
            "exclude": [context.path(e) if tm and e.startswith("~") else e for e in self.exclude],
            "password": str(self.password or ""),
            "keep": {k: v for k, v in self.keep.model_dump().items() if v and not tm},
            "large": parse_size(self.large),
            "copy_large": self.copy_large,
            "upload": parse_size(self.upload) if self.upload else 0,
            "hours": self.hours,
            "drill": self.drill,
            "alert": self.alert,
        }

    def file(self, context: Context) -> str:
        """Where the settings are kept. Pure."""
        return f"{context.state}/backup/{context.address.partition('.')[2]}.json"

    def job(self, context: Context) -> str:
        """The name of the timer, one per lab and backup. Pure."""
        return f"lab-{short(context.lab)}-{context.address.replace('.', '-')}"

    def wanted(self, context: Context) -> Facts:
        return {**self.settings(context), "every": self.every or "never", "repository": "there"}

    def observe(self, world: World, context: Context) -> Facts | None:
        raw = world.read(self.file(context))
        every = world.ask("schedule", name=self.job(context))
        if raw is None and every is None:
            return None
        try:
            settings: Mapping[str, Any] = json.loads(raw) if raw else {}
        except ValueError:
            settings = {"settings": "not readable"}
        places = [r for r in settings.get("repos", ()) if str(r).startswith("/")]
        for place in places:
            if world.volume(place) is None:
                raise Unknown(f"the volume of {place} is not mounted")
        sign = "" if settings.get("tool") == "time_machine" else "/config"
        missing = [p for p in places if world.stat(f"{p}{sign}") is None]
        return {
            **settings,
            "every": every or "never",
            "repository": "gone: " + ", ".join(missing) if missing else "there",
        }

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        if change.action is Action.DESTROY:
            yield Schedule(self.job(context))
            yield Remove(self.file(context))
            return
        for repo in (self.repo, *self.also):
            yield OpenRepository(self.place(repo, context) or repo, str(self.password or ""), self.tool)
        yield Write(self.file(context), json.dumps(self.settings(context), indent=1, sort_keys=True) + "\n", 0o600)
        yield Schedule(
            self.job(context), self.every, ("backup", "now", context.address.partition(".")[2], "--scheduled")
        )
