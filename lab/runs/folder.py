"""Folder: everything known of one run is in its folder under `state/runs/`, readable without Lab.

    spec.json       what to run: arguments, parameters, limits (no secret's value)
    inputs.json     what it is made from: code, environment, models, datasets, seed, host
    process.json    who runs it now: process ids with their start times, the boot they belong to
    metrics.jsonl   one line per call: [step, milliseconds, {name: value}]
    system.jsonl    the same for the machine's own figures
    events.jsonl    parameters, tags, artifacts, in the order they were logged
    output.log      what it printed, secrets masked
    result.json     how it ended; in place, whole, exactly when it has ended
    artifacts/ outputs/ checkpoints/    files

Imports the standard library only: supervisors start with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ACTIVE = ("queued", "running", "paused", "unsupervised")
"""States of a run that has not ended; `unsupervised`: it lives, its supervisor does not."""
ENDED = ("finished", "failed", "killed", "out of memory", "timed out", "stopped", "interrupted")
"""`killed`: by a signal that was not ours. `interrupted`: nobody saw it end (a crash or a restart of the machine)."""


def new_id(name: str) -> str:
    """A run's name: experiment, UTC time, four random hex digits; sorts by time within an experiment."""
    return f"{name.replace('/', '_')}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"


class RunFolder:
    """One run's folder; every answer is read from disk when asked."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run; empty where it is missing or damaged."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, value: Mapping[str, Any], *, durable: bool = True) -> None:
        """A JSON file of the run is in place, whole and, unless it can be made again, on disk."""
        self.path.mkdir(parents=True, exist_ok=True)
        put(self.path / name, json.dumps(value, indent=1, sort_keys=True, default=str) + "\n", durable=durable)

    @property
    def spec(self) -> dict[str, Any]:
        """What is run."""
        return self.read("spec.json")

    @property
    def result(self) -> dict[str, Any]:
        """How it ended; empty while it has not."""
        return self.read("result.json")

    def held(self) -> bool:
        """Whether a process holds the run's lease: the kernel frees it when the holder dies, however it dies."""
        try:
            with open(self.path / "lease", "rb") as f:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def state(self) -> str:
        """One of ACTIVE or ENDED, as true as can be told now."""
        if (self.path / "result.json").exists():
            return str(self.result.get("state", "failed"))
        process = self.read("process.json")
        if not self.held():
            if (self.path / "result.json").exists():
                return str(self.result.get("state", "failed"))
            asked = self.path / ("process.json" if process else "spec.json")
            return "interrupted" if process.get("supervisor") or process.get("own") or _old(asked) else "queued"
        if process.get("paused"):
            return "paused"
        if process.get("waiting"):
            return "queued"
        if process.get("supervisor") and not alive(process["supervisor"]):
            return "unsupervised"
        return "running"

    def metrics(self, name: str = "metrics.jsonl") -> Iterator[tuple[int, int, dict[str, float]]]:
        """The points as they were logged: step, milliseconds since the epoch, values by name."""
        try:
            with open(self.path / name, "rb") as f:
                for line in f:
                    point = parse(line)
                    if point is not None:
                        yield point
        except FileNotFoundError:
            return

    def last(self) -> dict[str, float]:
        """The last value of each metric, by its step and then its time."""
        found: dict[str, tuple[int, int, float]] = {}
        for step, at, values in self.metrics():
            for name, value in values.items():
                if name not in found or (step, at) >= found[name][:2]:
                    found[name] = (step, at, value)
        return {name: v[2] for name, v in sorted(found.items())}


def parse(line: bytes) -> tuple[int, int, dict[str, float]] | None:
    """A spooled line as a point; None where it is torn (a crash or a full disk in mid-line)."""
    try:
        step, at, values = json.loads(line)
        return int(step), int(at), {str(k): float(v) for k, v in values.items()}
    except (ValueError, TypeError, AttributeError):
        return None


def put(path: Path, text: str, *, durable: bool = True) -> None:
    """`path` holds exactly `text`; a reader sees the old file or the new one.

    It is on disk, unless `durable` is false: then a power cut may leave it empty, and whoever needs it makes it again.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.lab-tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(text)
            if durable:
                f.flush()
                os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def tidy(folder: Path) -> None:
    """What `put` had begun there in processes that are no more is gone."""
    for path in folder.glob(".*.lab-tmp"):
        pid = path.name.split(".")[-3]
        if pid.isdigit() and _start(int(pid)) is None:
            path.unlink(missing_ok=True)


def boot() -> str:
    """An identity of this start of the machine: process ids mean nothing in another."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    import psutil

    return f"{psutil.boot_time():.0f}"


def who(pid: int) -> dict[str, Any]:
    """A process as it can be recognised later: id, start time, boot."""
    return {"pid": pid, "start": _start(pid), "boot": boot()}


def alive(process: Mapping[str, Any]) -> bool:
    """Whether exactly this process lives: neither a restart of the machine nor a reused id deceives it."""
    if not process or process.get("boot") != boot():
        return False
    start = _start(int(process["pid"]))
    return start is not None and start == process.get("start")


def _start(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        if os.path.isdir("/proc/self"):
            return None
    import psutil

    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else f"{found.create_time():.2f}"
    return None


def _old(path: Path, seconds: float = 30.0) -> bool:
    try:
        return time.time() - path.stat().st_mtime > seconds
    except OSError:
        return False
