"""tools: what a lab's kinds need on the machine beside Lab itself, whether it is there, and how it is got."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.core.address import Address
from lab.core.kind import Declaration

EVERYONE = "every lab"
SYSTEM = ("/usr/sbin", "/sbin")
"""Where programs of the system lie that a person's PATH may lack."""


@dataclass(frozen=True)
class Tool:
    """One program, or one Python module of Lab's extras, and who needs it."""

    name: str
    by: frozenset[str]
    """Kinds, formats of quantizations or tools of backups that need it."""
    package: str = ""
    """The Debian and Homebrew package of a program."""
    extra: str = ""
    """The extra of Lab that brings a module."""

    def there(self) -> str:
        """Where it lies; empty where it is missing. Reads."""
        if not self.extra:
            return shutil.which(self.name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM])) or ""
        found = importlib.util.find_spec(self.name)
        return str(Path(found.origin).parent) if found and found.origin else ""

    def command(self) -> tuple[str, ...]:
        """The command that gets it, on this machine."""
        return commands([self])[0]


TOOLS = (
    Tool("git", frozenset({EVERYONE}), package="git"),
    Tool("rattler", frozenset({"env"}), extra="envs"),
    Tool("llama_cpp", frozenset({"gguf"}), extra="llama"),
    Tool("mlx_lm", frozenset({"mlx"}), extra="mlx"),
    Tool("optuna", frozenset({"sweep"}), extra="sweep"),
    Tool("ansible_runner", frozenset({"guest", "access"}), extra="host"),
    Tool("ssh", frozenset({"access"}), package="ssh"),
    Tool("restic", frozenset({"restic"}), package="restic"),
    Tool("borg", frozenset({"borg"}), package="borgbackup"),
    *([] if sys.platform == "darwin" else [Tool("setfacl", frozenset({"guest"}), package="acl")]),
)


def needs(declarations: Mapping[Address, Declaration]) -> set[str]:
    """What the declared resources need tools for: kinds, formats of quantizations, tools of backups. Pure."""
    found = {EVERYONE}
    for address, declared in declarations.items():
        found.add(address.kind)
        if address.kind == "quantization":
            found.add(str(getattr(declared, "format", "")))
        if address.kind == "backup":
            found.add(str(getattr(declared, "tool", "restic")))
    return found


def commands(tools: Iterable[Tool], platform: str = sys.platform) -> list[tuple[str, ...]]:
    """The fewest commands that get these: one for the system's packages, one for Lab's extras."""
    asked = list(tools)
    packages = sorted({t.package for t in asked if t.package})
    extras = sorted({t.extra for t in asked if t.extra})
    out: list[tuple[str, ...]] = []
    if packages and platform == "darwin":
        out.append(("brew", "install", *packages))
    elif packages:
        sudo = () if os.geteuid() == 0 else ("sudo",)
        out.append((*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages))
    if extras:
        pip = ("-m", "pip", "install") if importlib.util.find_spec("pip") else ("-m", "uv", "pip", "install")
        out.append((sys.executable, *pip, f"llm-lab[{','.join(extras)}]"))
    return out
