"""env: running in environments, and what is in them."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.adapters import envexport, envlock, prefix
from lab.adapters.closed import environment
from lab.adapters.secrets import resolve
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.facts import Facts
from lab.core.kind import Declaration
from lab.core.problem import did_you_mean, problem
from lab.core.units import size

PLACES = ("LAB_ROOT", "LAB_CHANNELS")


def find(lab: Lab, name: str) -> Address:
    """The address of a declared env; a problem with the nearest name where there is none."""
    address = Address.of("env", name.removeprefix("env."))
    envs = [a for a in lab.declarations if a.kind == "env"]
    if address not in envs:
        raise problem(
            f"there is no env `{name}`{did_you_mean(address.name, [a.name for a in envs])}",
            do="`lab env list` names those declared",
        )
    return address


def standing(lab: Lab, address: Address) -> Facts:
    """The facts of an installed env; a problem where it is not installed."""
    declaration = lab.declarations[address]
    seen = declaration.observe(lab.world(), lab.context(address))
    if seen is None or not seen.get("lock"):
        raise problem(f"{address} is not installed", do=f"`lab apply --only {address}`")
    return seen


def variables(lab: Lab, address: Address) -> dict[str, str]:
    """What an env declares for its processes, secrets read now."""
    declaration: Any = lab.declarations[address]
    said = dict(declaration.spec(lab.context(address)).get("variables", {}))
    return {**said, **{k: resolve(v) for k, v in declaration.secrets.items()}}


def run(lab: Lab, name: str, command: Sequence[str], *, replace: bool = False) -> int:
    """The exit status of a command run closed in an env.

    The prefix it starts in stays until it ends, even when the env is replaced meanwhile. With `replace`, this process
    becomes the command.
    """
    address = find(lab, name)
    seen = standing(lab, address)
    env = environment(seen["prefix"], variables(lab, address))
    lease = os.open(Path(seen["prefix"], prefix.OURS, "lease"), os.O_RDONLY | os.O_CREAT, 0o644)
    fcntl.flock(lease, fcntl.LOCK_SH)
    os.set_inheritable(lease, True)
    try:
        if replace:
            os.execvpe(command[0], list(command), env)
        return subprocess.run(list(command), env=env, pass_fds=[lease], check=False).returncode
    except (FileNotFoundError, PermissionError) as e:
        raise problem(
            f"`{command[0]}` cannot be run in {address}",
            why=f"{e.strerror}; an env sees its own tools and the system's, not yours",
            do="add the package that has it to the env",
        ) from e
    finally:
        os.close(lease)


def shell_command(lab: Lab, name: str) -> list[str]:
    """The command of an interactive shell in an env, without the user's own start-up files."""
    shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    return [shell, "--noprofile", "--norc", "-i"] if shell.endswith("bash") else [shell, "-i"]


def lock(lab: Lab, name: str) -> dict[str, Any]:
    """The lock of an env with this machine's places written in, parsed."""
    import yaml

    address = find(lab, name)
    found = envlock.parsed(address.name, envlock.lying(address.name, lab.locks))
    if found.get("package") and not any(p["url"] for p in found["package"]):
        return found
    read: dict[str, Any] = yaml.load(lock_text(lab, name), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506 # a safe loader
    return read


def lock_text(lab: Lab, name: str) -> str:
    """The text of an env's lock with this machine's places written in."""
    address = find(lab, name)
    path = envlock.lying(address.name, lab.locks) / f"{address.name}.conda-lock.yml"
    if not path.exists():
        if (lab.context(address).lock or {}).get("platforms"):
            raise problem(
                f"the lock of {address} holds pins, not a conda-lock file", do="set `lock: full` and lock again"
            )
        raise problem(f"{address} is not locked", do=f"`lab lock {address}`")
    text = path.read_text()
    for key, value in (("LAB_ROOT", lab.root), ("LAB_CHANNELS", lab.state / "cache" / "channels")):
        text = text.replace(f"${key}", str(value))
    return text


def export(lab: Lab, name: str, form: str, platform: str = "") -> str:
    """An env's lock in another tool's format, for a platform (this host's by default)."""
    if form not in envexport.FORMATS:
        raise problem(
            f"`{form}` is no format{did_you_mean(form, envexport.FORMATS)}", do=f"use {', '.join(envexport.FORMATS)}"
        )
    if form == "conda-lock":
        return lock_text(lab, name)
    found = lock(lab, name)
    platform = platform or lab.host.platform
    if platform not in found["metadata"]["platforms"]:
        locked = ", ".join(found["metadata"]["platforms"])
        raise problem(f"{platform} is not in the lock of {name}", why=f"it holds {locked}", do="add it to `platforms`")
    if form == "pixi":
        summary = lab.context(find(lab, name)).lock or {}
        return envexport.pixi(found, name, summary.get("virtual_packages", {}))
    return envexport.OF_PLATFORM[form](found, platform)


def update(lab: Lab, name: str, packages: Sequence[str] = ()) -> list[str]:
    """What moved when an env was locked anew with newer versions allowed, for some packages or for all."""
    address = find(lab, name)
    before = lab.context(address).lock or {}
    step: Any = lab.declarations[address].resolve(lab.context(address))
    return envlock.moved(before, lab.perform(replace(step, update=tuple(packages) or ("*",)), address))


def diff(lab: Lab, one: str, other: str, platform: str = "") -> list[tuple[str, str, str]]:
    """Package, its version in one env and in the other, where they differ; empty where it is missing."""
    platform = platform or lab.host.platform
    a, b = (
        {p["name"]: p["version"] for p in lock(lab, n)["package"] if p["platform"] == platform} for n in (one, other)
    )
    return [(n, a.get(n, ""), b.get(n, "")) for n in sorted({*a, *b}) if a.get(n) != b.get(n)]


@dataclass(frozen=True, slots=True)
class Line:
    """One env in a list."""

    name: str
    state: str
    """`intact`, what has drifted, `not installed`, or `not locked`."""
    packages: int
    bytes: int
    prefix: str
    description: str
    content_digest: str = ""

    @property
    def size(self) -> str:
        """Its size as people read it."""
        return size(self.bytes) if self.bytes else ""


def listing(lab: Lab) -> list[Line]:
    """Every declared env."""
    return [_line(lab, a, d) for a, d in sorted(lab.declarations.items()) if a.kind == "env"]


def _line(lab: Lab, address: Address, declaration: Declaration) -> Line:
    context = lab.context(address)
    seen = declaration.observe(lab.world(), context) or {}
    here = (context.lock or {}).get("platforms", {}).get(lab.host.platform, {})
    state = str(seen.get("state") or ("not installed" if here else "not locked"))
    return Line(
        address.name,
        state,
        len(here.get("packages", ())),
        int(seen.get("bytes", 0)),
        str(seen.get("prefix", "")),
        declaration.description,
        str(seen.get("content_digest", "")),
    )


def page(lab: Lab, name: str) -> str:
    """The generated page of an env: its purpose, size, lock and every package, as Markdown."""
    address = find(lab, name)
    declaration: Any = lab.declarations[address]
    context = lab.context(address)
    line = _line(lab, address, declaration)
    lines = [f"# env {address.name}", ""]
    if declaration.description:
        lines += [declaration.description, ""]
    lines.append(f"- state here: {line.state}" + (f", {line.size}" if line.bytes else ""))
    if context.lock:
        file = context.lock.get("lockfile") or f"{address.name}.yaml"
        folder = envlock.lying(address.name, lab.locks).relative_to(lab.root)
        lines.append(f"- lock: `{folder}/{file}`, {_committed(lab, f'{folder}/{address.name}.yaml')}")
        for platform, part in context.lock["platforms"].items():
            lines.append(
                f"- {platform}: {part['conda']} conda and {part['pip']} Python packages, digest `{part['digest'][:12]}`"
            )
        table = context.lock["platforms"]
        names = sorted({n for part in table.values() for n in part["packages"]})
        lines += ["", f"| package | {' | '.join(table)} |", f"|---|{'---|' * len(table)}"]
        lines += [f"| {n} | {' | '.join(part['packages'].get(n, '–') for part in table.values())} |" for n in names]
    return "\n".join(lines) + "\n"


def _committed(lab: Lab, file: str) -> str:
    said = subprocess.run(
        [
            "git",
            "-C",
            str(lab.root),
            "log",
            "-1",
            "--format=locked %cs (%h)",
            "--",
            file,
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return said or "not committed yet"
