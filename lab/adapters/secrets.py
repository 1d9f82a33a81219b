"""Secrets: the value behind a reference, read when a step needs it and kept nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lab.core.problem import problem
from lab.core.secret import Secret


def resolve(reference: str) -> str:
    """The value of `env:NAME`, `file:PATH`, `keychain:ITEM` or `command:LINE`, without a final newline."""
    secret = Secret.parse(reference)
    if secret.source == "env":
        if secret.key not in os.environ:
            raise problem(f"the secret {reference} is not there", why="no such environment variable", do="export it")
        return os.environ[secret.key]
    if secret.source == "file":
        try:
            return Path(secret.key).expanduser().read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as e:
            raise problem(
                f"the secret {reference} cannot be read", why=getattr(e, "strerror", None) or "not text"
            ) from e
    if secret.source == "keychain":
        if sys.platform != "darwin":
            raise problem(f"the secret {reference} is in a keychain", why="this is no Mac", do="use env: or file:")
        return _output(["security", "find-generic-password", "-w", "-s", secret.key], reference)
    return _output(["sh", "-c", secret.key], reference)


def _output(command: list[str], reference: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    if done.returncode:
        raise problem(
            f"the secret {Secret(reference).source} reference gave no value", why=f"it exited with {done.returncode}"
        )
    return done.stdout.rstrip("\n")
