"""Readers: which runs and sweeps read a model or a dataset, or run in an env, at this moment. Reads only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.core.problem import problem
from lab.runs import sweep_folder
from lab.runs.folder import ACTIVE, RunFolder

PATIENCE = 30.0
"""Seconds one waits to be alone with the readers."""


def readers(state: Path) -> dict[str, list[str]]:
    """Address → the folders below `state/` of what reads it."""
    found: dict[str, list[str]] = {}
    for run in _unfinished(state / "runs"):
        if run.state() in ACTIVE:
            inputs = run.read("inputs.json")
            for address in {*given(inputs), *(inputs.get("env") or {})}:
                found.setdefault(address, []).append(f"runs/{run.id}")
    for folder in sorted((state / "sweeps" / "studies").glob("*/lock")):
        if sweep_folder.coordinator(folder.parent):
            step = RunFolder(folder.parent).read("step.json")
            used = (step.get("inputs") or {}).get("used") or {}
            for address in {*given(step.get("spec") or {}), *(used.get("env") or {})}:
                found.setdefault(address, []).append(f"sweeps/studies/{folder.parent.name}")
    return found


def reads(state: Path, reader: str) -> bool:
    """Whether one of those still does."""
    if reader.startswith("runs/"):
        return RunFolder(state / reader).state() in ACTIVE
    return bool(sweep_folder.coordinator(state / reader))


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Nobody becomes a reader inside, and nobody looks who is one; a Problem where somebody else stays inside."""
    state.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + PATIENCE
    with open(state / "readers.lock", "ab") as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise problem(
                        "it cannot be told what is being read",
                        why=f"a `lab` has held {f.name} for {PATIENCE:.0f} s, not milliseconds: is it suspended?",
                        do="let it go on (`fg`), or end it; then run the same command again",
                    ) from None
                time.sleep(0.01)
        yield


def _unfinished(runs: Path) -> Iterator[RunFolder]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(runs):
            if entry.is_dir() and not os.path.exists(f"{entry.path}/result.json"):
                yield RunFolder(entry.path)


def given(told: Mapping[str, Any]) -> set[str]:
    """The addresses of the models and datasets something is given. Pure."""
    found = set()
    for kind in ("models", "datasets"):
        for one in (told.get(kind) or {}).values():
            if address := one.get("address"):
                found |= {str(address), *(f"{address}.{level}" for level in one.get("levels") or {})}
    return found
