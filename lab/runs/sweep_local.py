"""Local: trials as runs of this host, each under a supervisor that outlives the sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.runs import run
from lab.runs.folder import RunFolder
from lab.runs.run import Handle, RunSpec, launch
from lab.runs.sweep_ports import STARTING

Spec = Callable[[int, Mapping[str, Any]], tuple[RunSpec, Mapping[str, Any]]]
"""Number and nested parameters → what to run, and what its record says of its inputs."""


class Local:
    """Runs each trial in `state/runs/STUDY-NUMBER/`."""

    def __init__(self, runs: Path, study: str, spec: Spec, secrets: Mapping[str, str]) -> None:
        self.runs, self.study, self.spec, self.secrets = runs, study, spec, secrets
        self.handles: dict[int, Handle] = {}

    def folder(self, number: int) -> RunFolder:
        """`state/runs/STUDY-00012`."""
        return RunFolder(self.runs / f"{self.study}-{number:05d}")

    def start(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """See `Executor`."""
        folder = self.folder(number)
        spec, inputs = self.spec(number, params)
        if again and folder.spec:
            # The study, not the folder, remembers what the trial is: a power cut may have emptied the folder's files.
            spec.write(inputs, durable=False)
            self.handles[number] = run.again(folder, self.secrets)
            return
        self.handles[number] = launch(spec, inputs, self.secrets, durable=False)

    def poll(self, number: int) -> dict[str, Any] | None:
        """See `Executor`."""
        handle = self.handles.get(number)
        if handle is None:
            handle = self.handles[number] = Handle(self.folder(number))
        return handle.poll()

    def waits(self, number: int) -> str:
        """See `Executor`."""
        process = self.folder(number).read("process.json")
        if process.get("child") or self.folder(number).result:
            return ""
        return str(process.get("waiting") or STARTING)

    def stop(self, number: int) -> None:
        """See `Executor`."""
        self.handles.get(number, Handle(self.folder(number))).stop()

    def close(self) -> None:
        """Nothing: trials belong to their supervisors."""
