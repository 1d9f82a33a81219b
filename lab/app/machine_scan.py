"""What a machine already holds, as YAML that adopts it: models of other tools, and conda environments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab import kinds

_PREFIXES = (
    "miniforge3",
    "mambaforge",
    "miniconda3",
    "anaconda3",
    "micromamba",
    "opt/miniconda3",
    "opt/anaconda3",
    ".conda",
)


def declared(home: Path) -> tuple[dict[str, str], list[str]]:
    """Address → text of its file, for all that is found below `home`; and what cannot be declared, and why. Reads."""
    from lab.adapters.scan import scan

    out: dict[str, str] = {}
    notes: list[str] = []
    for found in scan(home):
        if not _fits(found.kind, found.block):
            notes.append(f"{found.name}: a {found.kind} cannot be declared of it")
        else:
            _add(out, found.kind, found.name, found.block, found.note)
    for prefix in prefixes(home):
        block, why = environment(prefix)
        if block and _fits("env", block):
            _add(
                out,
                "env",
                prefix.name if prefix.parent.name == "envs" else f"{prefix.name}_base",
                block,
                f"the packages of {prefix}, which stays as it is: `lab apply` builds an env of the lab's own",
            )
        else:
            notes.append(f"{prefix}: {why or 'an env cannot be declared of it'}")
    return out, notes


def _fits(kind: str, block: Mapping[str, Any]) -> bool:
    """Whether this Lab has the kind and the kind takes the block. Pure."""
    model = kinds.load(kind)
    try:
        return model is not None and model.model_validate(dict(block)) is not None
    except ValueError:
        return False


def _add(out: dict[str, str], kind: str, name: str, block: Mapping[str, Any], note: str) -> None:
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or kind
    taken = {a.lower() for a in out}
    free = next(n for n in (base, *(f"{base}_{i}" for i in range(2, 10_000))) if f"{kind}.{n}".lower() not in taken)
    out[f"{kind}.{free}"] = text(kind, block, note)


def text(kind: str, block: Mapping[str, Any], note: str) -> str:
    """The file of a found thing. Pure."""
    body = yaml.safe_dump(dict(block), sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000)
    comment = "".join(f"# {line}\n" for line in note.splitlines())
    return f"# yaml-language-server: $schema=../.schema/{kind}.json\n{comment}{body}"


def prefixes(home: Path) -> list[Path]:
    """The conda environments of `home`: those conda has noted, and those in the usual folders. Reads."""
    found: dict[Path, None] = {}
    noted = home / ".conda" / "environments.txt"
    lines = noted.read_text(errors="replace").splitlines() if noted.is_file() else []
    candidates: Iterable[Path] = [Path(line.strip()) for line in lines if line.strip()]
    for name in _PREFIXES:
        base = home / name
        envs = sorted((base / "envs").iterdir()) if (base / "envs").is_dir() else []
        candidates = [*candidates, base, *envs]
    for path in candidates:
        if (path / "conda-meta").is_dir():
            found[path] = None
    return list(found)


def environment(prefix: Path) -> tuple[dict[str, Any], str]:
    """The packages a conda environment was asked for, as an env's fields; empty, and why, where that cannot be told.

    What was asked for is in conda-meta/history; without it, every package that nothing else needs. Reads.
    """
    installed: dict[str, str] = {}
    needed: set[str] = set()
    channels: dict[str, None] = {}
    for record in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            package = json.loads(record.read_text())
            installed[package["name"]] = package["version"]
            needed |= {d.split()[0] for d in package.get("depends", ())}
            channel = str(package.get("channel", "")).rstrip("/")
        except (OSError, ValueError, KeyError, IndexError, AttributeError):
            return {}, f"{record.name} cannot be read"
        if channel:
            channels[re.sub(r"/(noarch|linux-\w+|osx-\w+|win-\w+)$", "", channel).rpartition("/")[2] or channel] = None
    if not installed:
        return {}, "it holds no packages"
    asked = [n for n in _asked(prefix) if n in installed] or sorted(set(installed) - needed)
    pip = [f"{n}=={v}" for n, v in _pip(prefix) if re.sub(r"[-_.]+", "-", n).lower() not in installed]
    block: dict[str, Any] = {
        "channels": list(channels) or ["conda-forge"],
        "conda": [f"{n} {installed[n]}" if n != "python" else f"python {installed[n]}" for n in asked],
    }
    return {**block, **({"pip": pip} if pip else {})}, ""


def _asked(prefix: Path) -> list[str]:
    history = prefix / "conda-meta" / "history"
    if not history.is_file():
        return []
    names: dict[str, None] = {}
    for line in history.read_text(errors="replace").splitlines():
        match = re.match(r"#\s*(update|install|create|remove)\s+specs:\s*(.*)", line)
        for spec in re.findall(r"[\"']([^\"']+)[\"']", match[2]) if match else ():
            name = re.split(r"[\s=<>!\[]", spec.rpartition("::")[2], maxsplit=1)[0].lower()
            if match and match[1] == "remove":
                names.pop(name, None)
            elif name:
                names[name] = None
    return list(names)


def _pip(prefix: Path) -> list[tuple[str, str]]:
    """Name and version of what pip installed into an environment. Reads."""
    out = []
    for info in sorted(prefix.glob("lib/python3*/site-packages/*.dist-info")):
        installer = info / "INSTALLER"
        if installer.is_file() and installer.read_text(errors="replace").strip() in ("pip", "uv"):
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            if name:
                out.append((name, version))
    return out
