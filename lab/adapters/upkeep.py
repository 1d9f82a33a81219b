"""Upkeep: what could be newer, whether the disk is encrypted, and logs that grow; by the system's own tools."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lab.core.problem import Unknown, problem


def upgradable(held: Iterable[str] = ()) -> list[dict[str, str]]:
    """`{name, from, to, source}` of every package and system update that waits, but for the held ones."""
    if sys.platform == "darwin":
        found = system_updates(_run("softwareupdate", "--list")) + brewed(_run("brew", "outdated", "--json=v2"))
    else:
        found = apt(_run("apt", "list", "--upgradable"))
    return [p for p in found if p["name"] not in set(held)]


def apt(text: str) -> list[dict[str, str]]:
    """What `apt list --upgradable` says. Pure."""
    out = []
    for line in text.splitlines():
        head, _, rest = line.partition(" [upgradable from: ")
        if rest:
            name, _, tail = head.partition("/")
            suite, version = [*tail.split(), "", ""][:2]
            out.append({"name": name, "from": rest.rstrip("]"), "to": version, "source": suite.split(",")[0]})
    return out


def system_updates(text: str) -> list[dict[str, str]]:
    """What `softwareupdate --list` says: `* Label: …`, then `Title: …, Version: …`. Pure."""
    out = []
    for line in text.splitlines():
        if line.strip().startswith("Title:"):
            fields = dict(f.strip().partition(": ")[::2] for f in line.strip().rstrip(",").split(", "))
            out.append(
                {"name": fields.get("Title", ""), "from": "", "to": fields.get("Version", ""), "source": "macOS"}
            )
    return out


def brewed(text: str) -> list[dict[str, str]]:
    """What `brew outdated --json=v2` says. Pure."""
    try:
        found: dict[str, Any] = json.loads(text or "{}")
    except ValueError:
        return []
    return [
        {
            "name": p["name"],
            "from": ", ".join(p.get("installed_versions", ())),
            "to": p.get("current_version", ""),
            "source": s,
        }
        for s in ("formulae", "casks")
        for p in found.get(s, ())
    ]


def install(held: Sequence[str]) -> str:
    """Every update but the held ones is installed (Debian); macOS is told how."""
    if sys.platform == "darwin":
        raise problem(
            "macOS updates need you",
            why="they ask for a credential",
            do="`brew upgrade`, and `softwareupdate --install --all`",
        )
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*become, "apt-mark", "hold", *held], capture_output=True) if held else None
    try:
        done = subprocess.run([*become, "apt-get", "-y", "upgrade"], capture_output=True, text=True, env=env)
    finally:
        subprocess.run([*become, "apt-mark", "unhold", *held], capture_output=True) if held else None
    if done.returncode:
        raise problem("the updates were not installed", why=done.stderr.strip()[-300:], do="run `sudo apt-get upgrade`")
    return next((x for x in done.stdout.splitlines() if " upgraded, " in x), "updated")


def encryption() -> dict[str, Any]:
    """`{encrypted, by, do}` of the disk that holds the system."""
    if sys.platform == "darwin":
        return filevault(_run("fdesetup", "status"))
    return luks(_run("lsblk", "--json", "--output", "NAME,TYPE,MOUNTPOINTS"))


def filevault(text: str) -> dict[str, Any]:
    """What `fdesetup status` says. Pure."""
    on = "FileVault is On" in text
    do = (
        ""
        if on
        else "System Settings → Privacy & Security → FileVault, or `sudo fdesetup enable`; keep the recovery key"
    )
    return {"encrypted": on, "by": "FileVault", "do": do}


def luks(text: str) -> dict[str, Any]:
    """What `lsblk --json` says of the device mounted at `/`: encrypted where a `crypt` lies on the way. Pure."""

    def way(devices: list[dict[str, Any]], above: list[str]) -> list[str] | None:
        for device in devices:
            here = [*above, str(device.get("type"))]
            if "/" in (device.get("mountpoints") or []):
                return here
            if (found := way(device.get("children") or [], here)) is not None:
                return found
        return None

    try:
        found = way(json.loads(text).get("blockdevices", []), [])
    except ValueError:
        found = None
    on = found is not None and "crypt" in found
    do = "" if on else "LUKS is set up when the system is installed; until then keep secrets on an encrypted volume"
    return {"encrypted": on, "by": "LUKS", "do": do}


def rotate(folder: Path, size: int, keep: int) -> list[str]:
    """Logs of at least `size` bytes are packed beside, and begun anew; the oldest packed ones go."""
    out = []
    for log in sorted(folder.glob("*.log")) if folder.is_dir() else ():
        if log.stat().st_size < size:
            continue
        oldest = Path(f"{log}.{keep}.gz")
        oldest.unlink(missing_ok=True)
        for n in range(keep - 1, 0, -1):
            if (packed := Path(f"{log}.{n}.gz")).exists():
                packed.rename(f"{log}.{n + 1}.gz")
        with log.open("rb") as source, gzip.open(f"{log}.1.gz", "wb") as packed_file:
            shutil.copyfileobj(source, packed_file)
        os.truncate(log, 0)  # whoever writes to it keeps it open
        out.append(str(log))
    return out


def _run(*argv: str) -> str:
    env = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, env=env)
    except FileNotFoundError as e:
        raise Unknown(f"{argv[0]} is not installed") from e
    except subprocess.TimeoutExpired as e:
        raise Unknown(f"{argv[0]} does not answer") from e
    return done.stdout
