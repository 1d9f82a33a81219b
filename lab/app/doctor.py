"""doctor: walks what the lab stands on, link by link, and names the broken one and its remedy."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import __version__
from lab.adapters import guest_account, ssh, tailscale
from lab.app import access as accesses
from lab.app import backup, guest, tools
from lab.app.lab import Lab
from lab.core.access_files import KEYS
from lab.core.problem import Problems, Unknown, did_you_mean, problem
from lab.core.units import duration
from lab.kinds.access import Access


@dataclass(frozen=True)
class Link:
    """One link of a chain: its name, what is wrong with it (empty: sound), and what to do."""

    name: str
    wrong: str = ""
    do: str = ""
    note: str = ""


def doctor(lab: Lab, topic: str = "", target: ssh.Target | None = None) -> dict[str, list[Link]]:
    """Each topic's links in order; a chain ends at its first broken link, since what follows hangs on it."""
    known: dict[str, Callable[[], Iterator[Link]]] = {
        "host": lambda: host(lab),
        "access": lambda: access(lab, target),
        "backup": lambda: backups(lab),
        "guest": lambda: guests(lab),
    }
    if topic and topic not in known:
        raise problem(f"the doctor knows no `{topic}`{did_you_mean(topic, known)}", do=f"ask for {', '.join(known)}")
    declared = {a.kind for a in lab.declarations}
    asked = [topic] if topic else [t for t in known if t == "host" or t in declared]
    out: dict[str, list[Link]] = {}
    for each in asked:
        out[each] = []
        for link in known[each]():
            out[each].append(link)
            if link.wrong and each == "access":
                break
    return out


def host(lab: Lab) -> Iterator[Link]:
    """Tools that declared kinds need, and places that must be writable."""
    asked = tools.needs(lab.declarations)
    for tool in tools.TOOLS:
        if tool.by & asked:
            there = tool.there()
            yield Link(tool.name, "" if there else "not installed", shlex.join(tool.command()), there)
    for name, path in (("state", lab.state), ("store", lab.store)):
        at = path
        while not at.exists() and at != at.parent:
            at = at.parent
        yield Link(
            name, "" if os.access(at, os.W_OK) else f"{at} cannot be written", f"chown {at} to yourself", str(path)
        )


def backups(lab: Lab) -> Iterator[Link]:
    """Every applied backup has a fresh snapshot, and its repository opens."""
    for status in backup.status(lab):
        name = status["backup"]
        age = "never made" if status["snapshot"] is None else f"{duration(status['snapshot'])} old"
        yield Link(f"{name}: snapshot", age if status["late"] else "", f"lab backup now {name}", age)
        try:
            count = len(backup.snapshots(lab, name))
            yield Link(f"{name}: repository", note=f"{count} snapshots")
        except Problems as e:
            yield Link(f"{name}: repository", e.problems[0].summary, e.problems[0].do)


def guests(lab: Lab) -> Iterator[Link]:
    """The broker answers, and each guest's account is there."""
    state = guest_account.broker(__version__)
    yield Link("broker", "" if state == "answers" else f"it is {state}", "`lab apply` starts it", state)
    for each in guest.guests(lab):
        yield Link(each["account"], "" if each["there"] else "there is no such account", "lab apply", each["expires"])


def access(lab: Lab, target: ssh.Target | None) -> Iterator[Link]:
    """From the outside in: interface, tailnet, name, port, sshd, host key, keys' permissions, login, shell."""
    declared = accesses.declared(lab)
    itself = target is None and not declared.addresses
    if target is None:
        # That this machine is itself needs no known host key.
        trust = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null") if itself else ()
        host = (declared.addresses or ("127.0.0.1",))[0]
        target = ssh.Target(host, declared.sshd.port, declared.users[0], options=trust)
    yield _interface()
    if declared.tailscale:
        yield _tailnet()
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        yield Link("name", note=str(found[0][4][0]))
    except OSError as e:
        yield Link(
            "name", f"{target.host} has no address: {e.strerror}", "check MagicDNS (`tailscale status`) or your DNS"
        )
    try:
        said = ssh.banner(target.host, target.port)
        wrong = "" if said.startswith("SSH-") else f"something else answers: {said[:40]!r}"
        yield Link("port", wrong, f"find what listens there: `lsof -i :{target.port}`", said)
    except OSError as e:
        yield _silent(target, e)
    yield _permissions(declared)
    _, why = ssh.login(target)
    if "REMOTE HOST IDENTIFICATION" in why or "Host key verification failed" in why:
        yield _host_key(target, why)
        return
    yield Link("host key")
    if why and ("denied" in why or "Too many authentication" in why):
        if itself:
            yield Link("key", note="sshd asks for one; run this on a device to try its own")
            return
        yield Link(
            "key", why, "add this device's key to `devices:` and apply; `lab access client` says which key is used"
        )
        return
    yield Link("key")
    yield Link("shell", why, "log in on the console and look at the login shell and its start files")


def _host_key(target: ssh.Target, why: str) -> Link:
    """The machine's key is not the one this device knows, or this device knows none yet."""
    at = target.host if target.port == 22 else f"[{target.host}]:{target.port}"
    if ssh.known(at):
        return Link(
            "host key", why, f"it is another than before; if the machine was reinstalled: `ssh-keygen -R '{at}'`"
        )
    return Link(
        "host key", "this device does not know the machine yet",
        f"`ssh -p {target.port} {target.user}@{target.host}` once, and compare the fingerprint with what "
        "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says there",
    )  # fmt: skip


def _interface() -> Link:
    import psutil

    up = [n for n, s in psutil.net_if_stats().items() if s.isup and not n.startswith("lo")]
    return Link(
        "interface", "" if up else "no network interface is up", "plug it in, or join a network", ", ".join(up[:4])
    )


def _tailnet() -> Link:
    try:
        found = tailscale.state()
    except Unknown as e:
        return Link("tailnet", str(e), "install or start Tailscale")
    sound = found["state"] == "Running"
    do = {"NeedsLogin": "tailscale login", "Stopped": "tailscale up"}.get(found["state"], "start tailscaled")
    return Link("tailnet", "" if sound else f"it is {found['state'] or 'not running'}", do, found["name"])


def _silent(target: ssh.Target, e: OSError) -> Link:
    """Nothing answers: either sshd does not run, or it runs on another port."""
    if target.host in ("127.0.0.1", "localhost", "::1"):
        import psutil

        try:
            listens = sorted(
                {
                    c.laddr.port
                    for c in psutil.net_connections("tcp")
                    if c.status == "LISTEN" and c.pid and "sshd" in psutil.Process(c.pid).name()
                }
            )
        except psutil.Error:
            listens = []
        if listens:
            return Link(
                "port",
                f"nothing listens on {target.port}; sshd does on {', '.join(map(str, listens))}",
                "mend `sshd.port`, then apply",
            )
        on = "sudo systemsetup -setremotelogin on" if sys.platform == "darwin" else "sudo systemctl start ssh"
        return Link("sshd", "it is not running", on)
    return Link(
        "port",
        f"{target.host}:{target.port} does not answer: {e.strerror or e}",
        "is the machine awake, and no firewall between?",
    )


def _permissions(declared: Access) -> Link:
    """sshd ignores keys that others could have written."""
    for user in declared.users:
        try:
            home = Path(pwd.getpwnam(user).pw_dir)
        except KeyError:
            return Link("account", f"there is no account {user}", "mend `users:`")
        for path in (home, home / ".ssh", home / ".ssh" / "authorized_keys", Path(KEYS), Path(KEYS) / user):
            try:
                mode = path.stat().st_mode
            except OSError:
                continue
            if stat.S_IMODE(mode) & 0o022:
                return Link("permissions", f"others may write {path}, so sshd ignores keys there", f"chmod go-w {path}")
    return Link("permissions")
