"""Where a sweep keeps its files.

state/sweeps/NAME.json               which study is in force, and what it found
state/sweeps/studies/STUDY/          step.json, lock, journal.log (or study.db), spec.json and metrics of the parent run
state/sweeps/points/DIGEST           which run has tried a point, whatever the sweep
state/runs/STUDY-00012/              a trial: an ordinary run
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.core.facts import digest
from lab.core.problem import problem
from lab.runs.folder import RunFolder, put, tidy


def study(state: Path, name: str) -> Path:
    """A study's folder."""
    return state / "sweeps" / "studies" / name


def summary(state: Path, name: str) -> dict[str, Any]:
    """What a sweep found; empty before its first trial has ended. Reads."""
    return RunFolder(state / "sweeps").read(f"{name}.json")


def summarize(state: Path, name: str, found: Mapping[str, Any]) -> None:
    """What a sweep found is in place."""
    path = state / "sweeps" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, json.dumps(dict(found), indent=1, sort_keys=True, default=str) + "\n")


@contextlib.contextmanager
def coordinated(folder: Path) -> Iterator[None]:
    """Only we coordinate this study; raises Problems that say who does. The kernel frees the lock of who dies."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 5
    with open(folder / "lock", "a+") as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                f.seek(0)
                holder = f.read().strip()
                if _gone(holder) and time.monotonic() < until:
                    time.sleep(0.05)  # a program it was just starting holds its files for a moment longer than it lived
                    continue
                raise problem(
                    f"{folder.name} is being coordinated already",
                    why=holder or "another process holds its lock",
                    do="wait for it, watch it with `lab sweep show`, or stop it",
                ) from None
        f.truncate(0)
        since = time.strftime("%H:%M:%S")
        f.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        f.flush()
        sweeps, runs = folder.parents[1], folder.parents[2] / "runs"
        for place in (folder, sweeps, sweeps / "points", *runs.glob(f"{folder.name}-*")):
            tidy(place)
        yield


def _gone(holder: str) -> bool:
    """Whether the process that wrote itself into the lock is none of this host any more. Reads."""
    words = holder.split()
    if len(words) < 4 or not words[1].isdigit() or words[3] != socket.gethostname():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def coordinator(folder: Path) -> str:
    """Who coordinates the study now; empty where nobody does. Reads."""
    try:
        with open(folder / "lock") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f.read().strip() or "another process"
    except FileNotFoundError:
        pass
    return ""


def point(base: Mapping[str, Any], params: Mapping[str, Any], seed: int) -> str:
    """The identity of one trial: what it is made from, with all its parameters. Pure."""
    return digest([base, dict(params), seed])


def keep(state: Path, key: str, run: RunFolder) -> None:
    """The run is known to have tried this point."""
    path = state / "sweeps" / "points" / key
    if path.exists() and path.read_text() == f"{run.id}\n":
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, run.id + "\n", durable=False)  # lost, the point is only run again


def kept(state: Path, key: str) -> RunFolder | None:
    """The finished run that has tried this point, if its folder is still there. Reads."""
    try:
        name = (state / "sweeps" / "points" / key).read_text().strip()
    except OSError:
        return None
    folder = RunFolder(state / "runs" / name)
    return folder if name and folder.result.get("state") == "finished" else None
