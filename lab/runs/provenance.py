"""Provenance: exactly which code, on which machine, a run is made from."""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.core.problem import problem

_CREDENTIAL = re.compile(r"(?<=://)[^/@\s]+@")


def here(root: Path) -> dict[str, Any]:
    """User, host, Python, platform, and what git knows of `root`. Reads."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {
        "user": user,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "git": git(root),
    }


def git(root: Path) -> dict[str, Any]:
    """Commit, branch, remote (without credentials) and the changed files; says so where git knows nothing. Reads."""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return {"commit": "none", "missing": "no git repository: neither commit nor diff of the code is recorded"}
    changed = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
    return {
        "commit": commit,
        "branch": _git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        "remote": _CREDENTIAL.sub("", _git(root, "config", "--get", "remote.origin.url")),
        "top": _git(root, "rev-parse", "--show-toplevel"),
        "dirty": bool(changed),
        "changed": changed[:200],
    }


def patch(root: Path) -> bytes:
    """Everything that is not committed, new files included, as one binary diff that `git apply` takes. Reads."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top:
        return b""
    index = Path(top) / ".git" / f"lab-index-{os.getpid()}"
    if not index.parent.is_dir():
        index = Path(_git(root, "rev-parse", "--absolute-git-dir")) / index.name
    env = {**os.environ, "GIT_INDEX_FILE": str(index)}
    try:
        for args in (["read-tree", "HEAD"], ["add", "--all", "."]):
            subprocess.run(["git", *args], cwd=top, env=env, capture_output=True, timeout=120)
        done = subprocess.run(
            ["git", "diff", "--cached", "--binary", "HEAD"], cwd=top, env=env, capture_output=True, timeout=120
        )
        return done.stdout if done.returncode == 0 else b""
    except (OSError, subprocess.TimeoutExpired):
        return b""
    finally:
        index.unlink(missing_ok=True)


def clean(root: Path, name: str) -> None:
    """The tree has no uncommitted changes; raises Problems that name them."""
    found = git(root)
    if found.get("commit") == "none":
        raise problem(f"{name} asks for a clean git tree", why="this is no git repository", do="commit the lab")
    if found["dirty"]:
        listed = ", ".join(found["changed"][:5]) + (" …" if len(found["changed"]) > 5 else "")
        raise problem(f"{name} asks for a clean git tree", why=f"not committed: {listed}", do="commit, or stash")


def interpreter(python: str) -> dict[str, Any]:
    """The interpreter as it is found: its path, and the hash of its env's list of packages. Reads."""
    prefix = Path(python).parent.parent
    names = sorted(p.name for p in prefix.glob("lib/python*/site-packages/*.dist-info"))
    return {"path": python, "packages": hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""}


def _git(root: Path, *args: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *args], cwd=root, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.rstrip("\n") if done.returncode == 0 else ""
