"""access: how the owner reaches the machine, from anywhere and by key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from lab.core import access_files as text
from lab.core.block import Block
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.forecast import Forecast
from lab.core.kind import Context, Declaration
from lab.core.secret import Secret
from lab.core.step import Play, Step
from lab.core.world import World

KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) ([A-Za-z0-9+/=]{40,})(?: (.*))?")
MARK = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"


class Sshd(Block):
    """What sshd allows."""

    port: int = Field(default=22, ge=1, le=65535)
    """Where it listens."""
    passwords: bool | None = None
    """Whether passwords open it; unless said, only on macOS, where unlocking FileVault over ssh needs the owner's."""
    root: bool = False
    """Whether root may log in, by key."""
    listen: tuple[str, ...] = ()
    """Addresses it listens on, the tailnet's for example; empty for all."""
    only: bool = True
    """Only `users` and the lab's guests may log in."""
    forwarding: bool = True
    """Whether the owner may forward ports (dashboards are reached so)."""
    keep_alive: int = Field(default=60, ge=5)
    """Seconds between signs of life."""


class Tailscale(Block):
    """What `tailscale up` is given: every flag that is not its default, since it demands them all."""

    hostname: str = Field(default="", pattern=MARK + "|^$")
    """The machine's name in the tailnet (MagicDNS)."""
    tags: tuple[str, ...] = ()
    """`tag:lab`."""
    ssh: bool = False
    """Whether Tailscale's own ssh server answers."""
    accept_routes: bool = False
    """Whether other machines' subnets are taken."""
    accept_dns: bool = True
    """Whether the tailnet's names are resolved."""
    routes: tuple[str, ...] = ()
    """Subnets that are offered."""
    exit_node: bool = False
    """Whether others may reach the internet through this machine."""
    auth: Secret | None = None
    """An auth key, for a machine nobody sits at."""
    policy: str = ""
    """The tailnet's policy file, checked and not sent: paste it in the admin console, or let its GitOps do it."""

    def flags(self) -> list[str]:
        """The arguments after `tailscale up`. Pure."""
        out = [f"--hostname={self.hostname}"] if self.hostname else []
        out += [f"--advertise-tags={','.join(self.tags)}"] if self.tags else []
        out += [f"--advertise-routes={','.join(self.routes)}"] if self.routes else []
        flags = (("ssh", self.ssh), ("accept-routes", self.accept_routes), ("advertise-exit-node", self.exit_node))
        return [*out, *(f"--{f}" for f, on in flags if on), *([] if self.accept_dns else ["--accept-dns=false"])]

    def prefs(self) -> dict[str, Any]:
        """The same, as `tailscale debug prefs` says it. Pure."""
        routes = sorted([*self.routes, *(("0.0.0.0/0", "::/0") if self.exit_node else ())])
        named = {"hostname": self.hostname} if self.hostname else {}
        return {
            **named, "tags": sorted(self.tags), "ssh": self.ssh, "accept_routes": self.accept_routes,
            "accept_dns": self.accept_dns, "routes": routes, "running": True,
        }  # fmt: skip


class Access(Declaration):
    """sshd by key, the devices that may come in, and the tailnet they come through.

        access/studio.yaml:  users: [chris]   devices: {laptop: keys/laptop.pub, phone: keys/phone.pub}

    A change is tried on another port first, and reverts by itself unless a fresh session says `lab access confirm`.
    Destroying it puts sshd back as it was without Lab, and leaves the tailnet.
    """

    kind: ClassVar[str] = "access"

    users: tuple[str, ...] = Field(min_length=1)
    """The accounts of the owner; the first is the one devices log in to."""
    devices: Mapping[str, str] = {}
    """Name of a device → its public key: the line itself, or a file of the repository."""
    sshd: Sshd = Sshd()
    """What sshd allows."""
    tailscale: Tailscale | None = None
    """The tailnet; left out, Lab does not touch it."""
    addresses: tuple[str, ...] = ()
    """Names and addresses under which devices reach the machine, the best first."""
    confirm: float = Field(default=5, gt=0)
    """Minutes after which an unconfirmed change of sshd reverts."""

    def contents(self, context: Context) -> Facts:
        files = [k for k in self.devices.values() if not KEY.fullmatch(k)]
        files += [self.tailscale.policy] if self.tailscale and self.tailscale.policy else []
        return {f: context.content(context.path(f)) for f in files}

    def key(self, device: str, context: Context) -> str:
        """The public key of a device, one line. Pure."""
        given = self.devices[device]
        found = given if KEY.fullmatch(given) else context.text(context.path(given)) or ""
        return next((x.strip() for x in found.splitlines() if KEY.fullmatch(x.strip())), "")

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        for device in self.devices:
            if not self.key(device, context):
                yield (
                    f"the key of {device} is not a public ssh key",
                    "devices",
                    "give the line of its .pub file, or the file",
                )
        if not self.devices and not self.passwords(context):
            yield "no device has a key and passwords are off: nobody could log in", "devices", "give one device's key"
        for user in self.users:
            if not re.fullmatch("[a-z_][a-z0-9_-]*", user):
                yield f"{user} is no account", "users", "give login names"
        if "root" in self.users and not self.sshd.root:
            yield "root is among `users`, and `sshd.root` is false", "sshd", "set `root: true`, or name another account"
        if self.tailscale and self.tailscale.policy:
            policy = context.text(context.path(self.tailscale.policy))
            for fault in ["it is not there"] if policy is None else text.policy_faults(policy):
                yield f"the tailnet policy {self.tailscale.policy}: {fault}", "tailscale", "mend the file"

    def passwords(self, context: Context) -> bool:
        """Whether passwords open sshd on this host. Pure."""
        said = self.sshd.passwords
        return context.host.platform.startswith("osx") if said is None else said

    def claims(self, context: Context) -> tuple[str, ...]:
        return ("sshd",)

    def files(self, context: Context) -> dict[str, str]:
        """Path → content of what root keeps. Pure."""
        s = self.sshd
        keys = "".join(f"{self.key(d, context)}\n" for d in sorted(self.devices))
        rules = text.drop_in(
            port=s.port, passwords=self.passwords(context), root=s.root, listen=s.listen, only=s.only,
            keep_alive=s.keep_alive, forwarding=s.forwarding,
        )  # fmt: skip
        return {**{f"{text.KEYS}/{u}": keys for u in self.users}, text.DROP_IN: rules}

    def wanted(self, context: Context) -> Facts:
        out: dict[str, Any] = {"files": {p: f"0644 {_sum(c)}" for p, c in self.files(context).items()}}
        out["users"] = sorted(self.users) if self.sshd.only else []
        if self.tailscale:
            out["tailscale"] = self.tailscale.prefs()
        return out

    def observe(self, world: World, context: Context) -> Facts | None:
        files = {}
        recorded = (context.recorded(context.address) or {}).get("files", {})
        for path in sorted({*self.files(context), *recorded}):
            if (stat := world.stat(path)) is not None:
                by = "" if stat.uid == 0 else f" owner {stat.uid}"
                files[path] = f"{stat.mode:04o} {(world.sha256(path) or '')[:16]}{by}"
        if not files:
            return None
        out: dict[str, Any] = {"files": files, "users": world.ask("members", group=text.GROUP)}
        if self.tailscale:
            out["tailscale"] = world.ask("tailscale")
        return out

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        recorded = change.recorded or {}
        old = sorted(
            set(recorded.get("files", {})) - (set() if change.action is Action.DESTROY else set(self.files(context)))
        )
        if change.action is Action.DESTROY:
            yield Play("access", {"state": "absent", "old": old or sorted(self.files(context))})
            return
        t = self.tailscale
        yield Play(
            "access",
            {
                "state": "present",
                "users": list(self.users),
                "only": self.sshd.only,
                "keys": [{"path": p, "content": c} for p, c in self.files(context).items() if p != text.DROP_IN],
                "rules": self.files(context)[text.DROP_IN],
                "expect": text.expectations(self.passwords(context), self.sshd.root, self.sshd.port),
                "old": old,
                "minutes": self.confirm,
                "confirmed": f"{context.state}/access/confirmed",
                "tailscale": t.flags() if t else [],
                "tailnet": t.prefs() if t else {},
            },
            secrets={"auth": str(t.auth)} if t and t.auth else {},
        )

    def forecast(self, change: Change, context: Context) -> Forecast:
        if context.host.platform.startswith("osx") and not self.passwords(context):
            return Forecast(notes=("with passwords off, FileVault cannot be unlocked over ssh after a restart",))
        return Forecast(notes=(f"sshd goes back by itself after {self.confirm:g} min: run `lab access confirm`",))


def _sum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]
