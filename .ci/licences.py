"""Writes docs/licences.md: the licence of everything that `.ci/requirements.txt` locks, from the installed metadata."""

# ruff: noqa: E501

import re
import sys
from importlib import metadata
from pathlib import Path

TOP = Path(__file__).parents[1]
NAMES = re.compile(r"(?m)^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")


def licence(name: str) -> str:
    """What a package says of its licence, in a few words; empty where it is not installed."""
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    found = told.get("License-Expression") or ""
    kinds = [c.rpartition("::")[2].strip() for c in told.get_all("Classifier", []) if c.startswith("License ::")]
    found = found or ", ".join(k for k in kinds if k != "OSI Approved")
    first = (told.get("License") or "").strip().splitlines()[:1]
    return (found or (first[0] if first else "not stated in its metadata"))[:80].replace("|", "/")


def page() -> str:
    """The page as text."""
    locked = sorted(set(NAMES.findall((TOP / ".ci/requirements.txt").read_text())), key=lambda p: p[0].lower())
    rows = [(n, v, licence(n)) for n, v in locked]
    lines = [
        "# Licences",
        "",
        "Lab itself is Apache-2.0. What development and CI install (`.ci/requirements.txt`), by the packages' metadata;",
        "written by `.ci/lock`. A plain `pip install llm-lab` takes only `dependencies` of pyproject.toml and what those need.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(f"| {n} | {v} | {text} |" for n, v, text in rows if text),
        "",
        "Locked for other platforms or Pythons, and not installed where this page was written: "
        + ", ".join(f"{n} {v}" for n, v, text in rows if not text)
        + ".",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit((TOP / "docs/licences.md").write_text(page()) < 0)
