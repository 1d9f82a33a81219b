"""guest: a person who may use the lab and cannot harm it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from lab import __version__
from lab.core import guest_files as text
from lab.core import guest_programs as programs
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.forecast import Forecast
from lab.core.guest_limits import Limits
from lab.core.kind import Context, Declaration, RefTo
from lab.core.step import Play, Step
from lab.core.units import size
from lab.core.world import World

KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) ([A-Za-z0-9+/=]+)(?: (.*))?")
MAY = RefTo("env", "model", "quantization", "dataset", "experiment", "sweep", "evaluation")
MADE = ("env", "model", "quantization", "dataset")
"""Of these, what is files: rights to them are given anew when they are made anew."""
ACCOUNT = "^[a-z_][a-z0-9_-]{0,30}$"


class Guest(Declaration):
    """A person with an account of their own, keys, an end, limits, and the right to use what is named and no more.

        guest/ann.yaml:  keys: [keys/ann.pub]   expires: 2027-03-01   may: [env.mlx, model.tiny_lm]

    Destroying it ends their sessions, archives (or deletes) their home and removes every trace of the account.
    """

    kind: ClassVar[str] = "guest"
    fixed: ClassVar[frozenset[str]] = frozenset({"account"})
    holds_data: ClassVar[bool] = True

    account: str = Field(default="", pattern=ACCOUNT + "|^$")
    """The login name; empty for the resource's own name."""
    person: str = Field(default="", pattern="^[^:\\n,]*$")
    """Who they are."""
    keys: tuple[str, ...] = Field(min_length=1)
    """Public ssh keys: the line itself, or a file of the repository that holds lines."""
    expires: str = ""
    """The first day they can no longer log in."""
    hours: str = ""
    """When they may log in, `09:00-18:00`, in the machine's own zone."""
    may: tuple[Annotated[Address, MAY], ...] = ()
    """What they may use: environments, models and data are readable to them, experiments they may start."""
    shell: bool = True
    """Whether they get a shell; else only `lab guest …`."""
    limits: Limits = Limits()
    """What they may take at most."""
    message: str = ""
    """A line of greeting."""
    home: str = Field(default="archive", pattern="^(archive|keep|delete)$")
    """What becomes of their home when they go: a tar file below `state/guests`, kept in place as root's, or nothing."""
    hide_processes: bool = False
    """Whether every user of the machine sees only their own processes (Linux; `/proc` with hidepid=2)."""

    @field_validator("expires")
    @classmethod
    def _day(cls, value: str) -> str:
        if value and (not re.fullmatch(r"\d{4}-\d\d-\d\d", value) or not _is_day(value)):
            raise ValueError("expected a day, such as 2027-03-01")
        return value

    @field_validator("hours")
    @classmethod
    def _clock(cls, value: str) -> str:
        if value and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", value):
            raise ValueError("expected hours, such as 09:00-18:00")
        return value

    @model_validator(mode="before")
    @classmethod
    def _after_what_they_use(cls, block: Any) -> Any:
        may, after = (block.get("may"), block.get("after", ())) if isinstance(block, Mapping) else (None, None)
        if isinstance(may, (list, tuple)) and isinstance(after, (list, tuple)):
            order = [m for m in may if isinstance(m, str) and m.partition(".")[0] in MADE and "." in m]
            return {**block, "after": tuple(dict.fromkeys([*after, *order]))}
        return block

    def requires(self) -> tuple[Address, ...]:
        """Only `needs`: a guest follows what they may use, and is not changed when it changes. Pure."""
        return tuple(Address(n) for n in self.needs)

    def contents(self, context: Context) -> Facts:
        return {k: context.content(context.path(k)) for k in self.keys if not KEY.fullmatch(k)}

    def name(self, context: Context) -> str:
        """The login name. Pure."""
        return self.account or context.address.partition(".")[2]

    def key_lines(self, context: Context) -> list[str]:
        """The public keys, one line each. Pure."""
        out: list[str] = []
        for key in self.keys:
            found = key if KEY.fullmatch(key) else context.text(context.path(key)) or ""
            out += [x.strip() for x in found.splitlines() if x.strip() and not x.startswith("#")]
        return out

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        if not re.fullmatch(ACCOUNT, self.name(context)):
            yield f"{self.name(context)} cannot be a login name", "account", "give one of a-z, 0-9, _ and -"
        for key in self.keys:
            if not KEY.fullmatch(key) and context.text(context.path(key)) is None:
                why = "a private key" if "PRIVATE KEY" in key else "neither a public key nor a file of the repository"
                yield f"a key of {context.address} is {why}", "keys", "give the line of the .pub file, or its path"
        for line in self.key_lines(context):
            if (m := KEY.fullmatch(line)) is None or not text.is_key(m[1], m[2]):
                yield (
                    f"a key of {context.address} is not a public ssh key",
                    "keys",
                    "copy the line of the .pub file whole",
                )
        yield from self._lacks(context)
        home = context.path("~")
        if home != "/" and PurePosixPath(context.store).is_relative_to(home):
            yield (
                f"the store {context.store} is inside your home, which guests may not enter",
                "",
                "set `lab.store` to a folder outside it, such as /srv/lab",
            )

    def _lacks(self, context: Context) -> Iterator[tuple[str, str, str]]:
        """What an experiment they may run needs and they may not use, or could not reach. Pure."""
        named = {str(m) for m in self.may}
        for ref in (level for m in self.may for level in context.levels(m)):
            declaration = context.declaration(ref)
            if ref.kind == "env":
                place = str(declaration.wanted(context.of(ref))["link"])
                if not PurePosixPath(place).is_relative_to(context.store):
                    do = f"set `lab.envs: {context.store}/envs` in conf/lab.yaml"
                    yield f"{ref} lies in {place}, where guests may not enter", "may", do
            if ref.kind != "experiment":
                continue
            used = [getattr(declaration, "env", None), *declaration.models.values(), *declaration.datasets.values()]
            for each in sorted({str(u) for u in used if u} - named):
                if not any(each.startswith(f"{n}.") for n in named):
                    yield f"{ref} needs {each}, which is not among what {context.address} may use", "may", f"add {each}"
            if declaration.secrets:
                yield f"{ref} uses secrets, which no guest is given", "may", f"leave {ref} out"

    def claims(self, context: Context) -> tuple[str, ...]:
        return (self.name(context),)

    def given(self, context: Context) -> Iterator[tuple[Address, Facts]]:
        """What they may use, a ladder level by level, and the facts it will have. Pure."""
        for named in self.may:
            for ref in context.levels(named):
                yield ref, context.declaration(ref).wanted(context.of(ref))

    def grants(self, context: Context) -> dict[str, str]:
        """Folder or file → `read`, and each folder on the way from the store → `enter`. Pure."""
        out: dict[str, str] = {}
        for ref, facts in self.given(context):
            path = next((str(facts[k]) for k in ("view", "path", "folder") if facts.get(k)), "")
            if ref.kind == "env":  # a link to one of the prefixes that are made for it, now or later
                path = f"{PurePosixPath(str(facts['link'])).parent}/.made/{ref.name}"
            if not path.startswith("/"):
                continue
            for parent in PurePosixPath(path).parents:
                if PurePosixPath(parent).is_relative_to(context.store):
                    out.setdefault(str(parent), "enter")
            out[path] = "read"
        return out

    def closed(self, context: Context) -> list[str]:
        """Folders no guest may enter. Pure."""
        home = context.path("~")
        return sorted({p for p in (home, context.root, context.state, context.store) if p not in ("/", "")})

    def files(self, context: Context) -> dict[str, tuple[str, str]]:
        """Path → (content, mode) of what root keeps for this guest. Pure."""
        name, folder = self.name(context), f"{text.FOLDER}/{self.name(context)}"
        numbers = self.limits.numbers()
        shown = {k: size(v) if k in ("memory", "file", "disk") else str(v) for k, v in numbers.items()}
        may = sorted(str(m) for m in self.may)
        out = {
            f"{folder}/authorized_keys": text.authorized_keys(self.key_lines(context), self.expires),
            f"{folder}/rules": text.rules(self.expires, self.hours, self.shell, numbers),
            f"{folder}/guide": text.guide(
                name,
                str(context.lab.get("name") or "the lab"),
                self.message,
                may,
                self.expires,
                self.hours,
                shown,
                self.shell,
            ),
            f"{folder}/rights.json": json.dumps(
                {"guest": name, "may": may, "expires": self.expires, "limits": numbers}, indent=1
            )
            + "\n",
        }
        if not context.host.platform.startswith("osx"):
            out[f"/etc/security/limits.d/60-lab-{name}.conf"] = text.pam(name, numbers, self.limits.sessions)
        return {path: (content, "0644") for path, content in out.items()}

    def shared(self, context: Context) -> dict[str, tuple[str, str]]:
        """Path → (content, mode) of what all guests share. Pure."""
        path = programs.paths() if context.host.platform.startswith("osx") else programs.profile()
        return {
            text.SESSION: (programs.session(), "0755"),
            text.START: (programs.start(), "0755"),
            text.CLIENT: (programs.client(), "0755"),
            path[0]: (path[1], "0644"),
            text.MATCH: (text.match(), "0644"),
        }

    def broker(self, context: Context) -> dict[str, Any]:
        """What the host is told of the broker. Pure."""
        stage = str(context.lab.get("stage") or "")
        return {
            **({"stage": stage} if stage else {}),
            "root": context.root,
            "version": __version__,
            "systemd": programs.systemd(context.root, stage),
            "launchd": programs.launchd(context.root, stage),
            "sudoers": programs.sudoers("@OWNER@"),
            "closed": self.closed(context),
        }

    def wanted(self, context: Context) -> Facts:
        files = {**self.shared(context), **self.files(context)}
        return {
            **({"processes": "hidden"} if self._hides(context) else {}),
            "account": self.name(context),
            "person": self.person,
            "shell": "/bin/bash",
            "groups": [text.GROUP],
            "expires": self.expires or "never",
            "broker": "answers",
            "files": {p: f"{mode} {_sum(content)}" for p, (content, mode) in files.items()},
            "grants": self.grants(context),
            "closed": dict.fromkeys(self.closed(context), "none"),
            "given": {str(ref): context.digest(ref)[:12] for ref, _ in self.given(context) if ref.kind in MADE},
        }

    def observe(self, world: World, context: Context) -> Facts | None:
        name = self.name(context)
        account = world.ask("account", name=name)
        recorded = context.recorded(context.address) or {}
        paths = [*self.shared(context), *self.files(context)]
        own = [p for p in {*paths, *recorded.get("files", {})} if f"/{name}" in p or f"-{name}." in p]
        if account is None and not any(world.stat(p) for p in own):
            return None
        files = {}
        for path in sorted({*paths, *own}):
            if (stat := world.stat(path)) is not None:
                by = "" if stat.uid == 0 else f" owner {stat.uid}"
                files[path] = f"{stat.mode:04o} {(world.sha256(path) or '')[:16]}{by}"
        granted = dict.fromkeys({*self.grants(context), *recorded.get("grants", {})})
        rights = {p: world.ask("acl", path=p, user=name) for p in sorted(granted)}
        closed = {p: world.ask("acl", path=p, group=text.GROUP) for p in self.closed(context)}
        mounts = (world.read("/proc/mounts") or b"").decode(errors="replace") if self._hides(context) else ""
        return {
            **({"processes": "hidden" if "hidepid=" in mounts else "shown"} if self._hides(context) else {}),
            **(account or {"account": "absent"}),
            "broker": world.ask("broker", version=__version__),
            "files": files,
            "grants": {p: r for p, r in rights.items() if r},
            "closed": {p: r for p, r in closed.items() if r},
            "given": _read(world.read(f"{text.FOLDER}/{name}/given.json")),
        }

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        recorded = change.recorded or {}
        if change.action is Action.DESTROY:
            yield Play("guest", self._gone(str(recorded.get("account") or self.name(context)), recorded, context))
            return
        was = str(recorded.get("account") or self.name(context))
        if was != self.name(context):
            yield Play("guest", self._gone(was, recorded, context))
        grants, before = self.grants(context), {**recorded.get("grants", {})}
        name = self.name(context)
        rights = {"read": "rX", "enter": "x"}
        yield Play(
            "guest",
            {
                "state": "present",
                "name": name,
                "shell": "/bin/bash",
                "comment": self.person,
                "groups": [],
                "expires": self.expires,
                "files": _items(self.files(context)),
                "shared": [
                    {**f, "validate": "sshd"} if f["path"] == text.MATCH else f for f in _items(self.shared(context))
                ],
                "grants": [
                    {
                        "path": p,
                        "who": f"u:{name}",
                        "permissions": rights[r],
                        "recursive": r == "read",
                        "store": context.store,
                    }
                    for p, r in sorted(grants.items())
                ],
                "revoked": _revoked(name, {p: r for p, r in before.items() if p not in grants}, context.store),
                "deny": self.closed(context),
                "folder": context.store,
                "deny_store": context.store if grants else "",
                "last_uid": f"{context.state}/guests/last_uid",
                "hide": self.hide_processes,
                "given": {
                    "path": f"{text.FOLDER}/{name}/given.json",
                    "content": json.dumps(self.wanted(context)["given"], indent=1) + "\n",
                },
                "broker": self.broker(context),
            },
        )

    def _hides(self, context: Context) -> bool:
        return self.hide_processes and context.host.platform.startswith("linux")

    def _gone(self, name: str, recorded: Facts, context: Context) -> dict[str, Any]:
        archive = f"{context.state}/guests/{name}-{change_stamp(recorded)}.tar.gz" if self.home == "archive" else ""
        files = recorded.get("files") or {**self.shared(context), **self.files(context)}
        own = [p for p in files if p not in self.shared(context)]
        return {
            "state": "absent",
            "name": name,
            "files": [{"path": p} for p in own],
            "shared": [{"path": p} for p in self.shared(context)],
            "revoked": _revoked(name, recorded.get("grants") or self.grants(context), context.store),
            "deny": sorted(recorded.get("closed") or self.closed(context)),
            "deny_store": context.store,
            "archive": archive,
            "keep": self.home == "keep",
            "broker": self.broker(context),
        }

    def forecast(self, change: Change, context: Context) -> Forecast:
        """What they gain, and which limits are weaker than they read. Pure."""
        notes = []
        if change.action is Action.CREATE:
            until = f" until {self.expires}" if self.expires else ""
            notes.append(f"opens {', '.join(self.may) or 'nothing yet'}{until}")
        limits = self.limits.numbers()
        if "disk" in limits:
            notes.append("limits.disk is looked at every half minute, not at each write")
        if context.host.platform.startswith("osx"):
            notes += [f"macOS does not enforce limits.{k} for every process" for k in ("memory", "cpu") if k in limits]
            notes.append("macOS has no account expiry: the key and the session end it")
            notes += ["macOS does not hide other people's processes"] * self.hide_processes
        return Forecast(notes=tuple(notes))


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def change_stamp(recorded: Facts) -> str:
    """A short name that is the same each time the same guest is removed: a removal begun twice archives once. Pure."""
    return hashlib.sha256(json.dumps(recorded, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _read(data: bytes | None) -> Any:
    """Which builds the rights were given on, as noted once they were; empty where nothing is. Pure."""
    try:
        return json.loads(data or b"{}")
    except ValueError:
        return "not readable"


def _sum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _items(files: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"path": p, "content": c, "mode": m} for p, (c, m) in files.items()]


def _revoked(name: str, grants: Mapping[str, str], store: str) -> list[dict[str, Any]]:
    return [
        {"path": p, "who": f"u:{name}", "recursive": r == "read", "store": store} for p, r in sorted(grants.items())
    ]
