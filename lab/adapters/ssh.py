"""ssh as a client: logins that are timed, and why one fails."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """Where and as whom to log in."""

    host: str
    port: int
    user: str
    identity: str = ""
    options: tuple[str, ...] = ()

    def argv(self, *more: str) -> list[str]:
        """The command line up to the host."""
        key = ["-i", self.identity, "-o", "IdentitiesOnly=yes"] if self.identity else []
        fixed = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=8", "-o", "LogLevel=ERROR"]
        return ["ssh", "-p", str(self.port), *key, *fixed, *self.options, *more, f"{self.user}@{self.host}"]


def reach(root: Path, name: str) -> tuple[str, str]:
    """Where ssh finds a host, and the lab's folder there as its shell takes it: `ssh:` and `folder:` of
    conf/host/NAME.yaml; without these the name itself, and the folder it has here. Reads.
    """
    import yaml

    try:
        found = yaml.safe_load((root / "conf" / "host" / f"{name}.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        found = None
    block = found if isinstance(found, dict) else {}
    return str(block.get("ssh") or name), quoted(str(block.get("folder") or root))


def quoted(folder: str) -> str:
    """A folder as a shell takes it, a home's `~` still being one. Pure."""
    rest = shlex.quote(folder.removeprefix("~/"))
    return f"~/{rest}" if folder.startswith("~/") else rest


def login(target: Target, command: str = "true", *more: str) -> tuple[float, str]:
    """(seconds, why it failed): one login that runs a command; the reason is empty where it worked."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*target.argv(*more), command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20
        )
    except FileNotFoundError:
        return 0.0, "ssh is not installed"
    except subprocess.TimeoutExpired:
        return time.monotonic() - begun, "no answer within 20 s"
    why = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return time.monotonic() - begun, why


def reused(target: Target, folder: Path) -> tuple[float, float]:
    """(seconds of a first login, seconds of one that shares its connection)."""
    shared = ("-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C", "-o", "ControlPersist=20")
    first, why = login(target, "true", *shared)
    again, why_again = login(target, "true", *shared)
    subprocess.run([*target.argv(*shared), "-O", "exit"], capture_output=True, stdin=subprocess.DEVNULL)
    return (first, again) if not (why or why_again) else (float("nan"), float("nan"))


def banner(host: str, port: int, timeout: float = 5) -> str:
    """What answers at a port: an ssh server says `SSH-2.0-…`; OSError where nothing does."""
    with socket.create_connection((host, port), timeout) as s:
        s.settimeout(timeout)
        return s.recv(200).decode("ascii", "replace").strip()


def known(host: str) -> bool:
    """Whether this account knows a host key for `name` or `[name]:port`. Reads."""
    try:
        done = subprocess.run(["ssh-keygen", "-F", host], capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return False
    return done.returncode == 0
