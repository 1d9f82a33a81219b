"""Secrets: the value behind a reference, read when a step needs it and kept nowhere."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lab.core import masking
from lab.core.problem import problem
from lab.core.secret import Secret

_withheld: dict[str, str] = {}
"""What `withhold` took out of the environment."""


def resolve(reference: str) -> str:
    """The value of `env:NAME`, `file:PATH`, `keychain:ITEM` or `command:LINE`, without a final newline.

    From then on it is masked in all that this process says, and a crash leaves no core file.
    """
    value = _read(Secret.parse(reference), reference)
    masking.know(value)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    return value


def withhold(references: Iterable[Secret]) -> None:
    """The variables of `env:` references are out of a command's environment: a child has those it is given."""
    for reference in references if masking.alone else ():
        if reference.source == "env" and reference.key in os.environ:
            _withheld[reference.key] = os.environ.pop(reference.key)


def _read(secret: Secret, reference: str) -> str:
    if secret.source == "env":
        withhold([secret])
        found = os.environ.get(secret.key, _withheld.get(secret.key))
        if found is None:
            raise problem(f"the secret {reference} is not there", why="no such environment variable", do="export it")
        return found
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
