"""Run: starts one run in its folder, and tells how it goes. Sweeps, experiments and `lab run` all start here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.core.problem import problem
from lab.runs.folder import ENDED, RunFolder, alive

_HOME = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunSpec:
    """What to run, as plain values. Exactly one of `argv` and `call`; no secret's value."""

    folder: Path
    """The run's own folder; its name is the run's."""
    name: str
    """The experiment's name."""
    argv: tuple[str, ...] = ()
    call: str = ""
    """`package.module:function`, called with the parameters as keyword arguments."""
    python: str = sys.executable
    """The interpreter of a `call`, in its env."""
    prefix: str = ""
    """The link of the env it runs in; what it leads to when the run begins is the run's to its end."""
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 42
    cwd: str = "."
    path: tuple[str, ...] = ()
    """Folders from which a `call` imports."""
    env: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    """Metrics it promises: without them it has failed."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """Metric → regular expression whose first group is a value in what it prints."""
    timeout: float | None = None
    memory: int | None = None
    """Bytes its processes may hold together."""
    expects: int | None = None
    """Bytes it begins with being free: `memory`, or where that is not declared what is known of it."""
    total: int | None = None
    """Bytes that all runs of this host may hold together; without it none waits for another."""
    admit: str = ""
    """`module:function` that lets it in."""
    drowning: str = ""
    """`module:function` that says why it must end where its need was only expected: empty where it may go on."""
    cores: int | None = None
    cards: int = 0
    """Accelerator cards that are its own while it runs."""
    priority: int = 0
    owner: str = ""
    """Whose run it is, and of which project: whom its time is charged to."""
    project: str = ""
    lasts: float | None = None
    """Seconds it is expected to take."""
    quotas: Mapping[str, Any] = field(default_factory=dict)
    """Quotas of its accounts, as `lab.core.quotas` spells them."""
    retries: int = 0
    backoff: float = 0.0
    grace: float = 5.0
    sample: float = 5.0
    """Seconds between two readings of the machine."""
    stop: Mapping[str, Any] = field(default_factory=dict)
    """When to stop early; see `lab.runs.early`."""
    tracker: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    goal: str = ""
    keep: Mapping[str, Any] = field(default_factory=dict)
    """Which checkpoints stay: `last`, `every`, `best: {metric, goal}`."""
    secrets: tuple[str, ...] = ()
    """Names of the variables whose values come through the pipe."""
    record: str = ""
    """The folder of its Markdown record."""
    register: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    """`module:function`s the supervisor calls with the folder once the result is in place."""
    digest: str = ""
    """Input digest of the experiment; empty for a run that no declaration stands behind."""
    isolation: str = "process"
    """`process`, or `inline`: in this process, for many short calls."""

    @classmethod
    def of(cls, values: Mapping[str, Any], **more: Any) -> RunSpec:
        """A spec from plain values, as JSON holds them; names that are none of its fields are left out. Pure."""
        known: dict[str, Any] = {k: v for k, v in values.items() if k in cls.__dataclass_fields__}
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (known | more).items()}
        return cls(**fields)

    def write(self, inputs: Mapping[str, Any] | None = None, *, durable: bool = True) -> RunFolder:
        """The folder holds the spec; nothing runs yet. Raises Problems where the disk refuses."""
        run = RunFolder(self.folder)
        spec = {**asdict(self), "folder": str(self.folder), "id": run.id, "argv": list(self.argv), "at": time.time()}
        env = dict(self.env)
        if self.cores:
            env = {**{k: str(self.cores) for k in _THREADS}, **env}
        if self.call:
            spec["argv"] = [self.python, "-m", "lab.sdk.call"]
            if "PYTHONPATH" not in env:
                env["PYTHONPATH"] = os.pathsep.join([*self.path, str(_HOME)])
        env.setdefault("PYTHONHASHSEED", str(self.seed % 2**32))
        env.setdefault("PYTHONUNBUFFERED", "1")
        spec["env"] = env
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            run.write("params.json", self.params, durable=durable)
            run.write("inputs.json", inputs or {}, durable=durable)
            run.write("spec.json", spec, durable=durable)
        except OSError as e:
            raise problem(f"the run {run.id} cannot be begun", why=f"{self.folder}: {e.strerror}") from e
        return run


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Handle:
    """A run that was started, here or by another process; holds nothing but its folder."""

    def __init__(self, folder: RunFolder, process: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self._process = process

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.id

    def poll(self) -> dict[str, Any] | None:
        """The result once it has ended, else None. A run that nobody saw end is `interrupted`."""
        if self._process is not None:
            self._process.poll()
        if found := self.folder.result:
            return found
        if self._process is not None and self._process.returncode is None:
            return None  # its supervisor lives, and may not hold the lease yet
        if self.folder.state() in ENDED:
            return self.folder.result or interrupted(self.folder)
        if self._process is not None and self._process.returncode is not None and not self.folder.held():
            return self.folder.result or interrupted(self.folder)
        return None

    def wait(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The result, or None where it has not ended in `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.002
        while (found := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                return None
            time.sleep(pause)
            pause = min(pause * 1.2, 0.05)
        return found

    def stop(self) -> None:
        """The run is asked to end; its supervisor ends it after a while. Nothing where it has ended."""
        self._signal(signal.SIGTERM)

    def pause(self) -> None:
        """The run uses no processor from now on."""
        self._signal(signal.SIGUSR1)

    def unpause(self) -> None:
        """The run goes on."""
        self._signal(signal.SIGUSR2)

    def _signal(self, number: signal.Signals) -> None:
        end = time.monotonic() + 5
        while not (process := self.folder.read("process.json")).get("supervisor") and time.monotonic() < end:
            if self.folder.result or (self._process is not None and self._process.poll() is not None):
                return
            time.sleep(0.01)
        supervisor = process.get("supervisor")
        if supervisor and alive(supervisor):
            os.kill(int(supervisor["pid"]), number)
        elif process.get("child") and alive(process["child"]) and number == signal.SIGTERM:
            with contextlib.suppress(OSError):
                os.killpg(int(process["child"]["pid"]), signal.SIGKILL)


def launch(
    spec: RunSpec,
    inputs: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    *,
    durable: bool = True,
    enter: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Handle:
    """The run is started, unless its folder holds a running or finished one: then that one is answered.

    It belongs to a supervisor of its own and outlives this process. `secrets` (variable → value) reach it through a
    pipe: they are in no file and no process list. Not `durable`: whoever starts it again writes what it is made from
    again, so that this need not wait for the disk. Within `enter` it comes to be seen.
    """
    folder = RunFolder(spec.folder)
    if (folder / "result.json").exists() or folder.held():
        return Handle(folder)
    with enter():
        spec.write(inputs, durable=durable)
    return _begun(folder, secrets or {})


def _begun(folder: RunFolder, secrets: Mapping[str, str]) -> Handle:
    if folder.spec.get("isolation") == "inline":
        from lab.runs.inline import run_inline

        run_inline(folder)
        return Handle(folder)
    return Handle(folder, _supervisor(folder, secrets))


def again(folder: RunFolder, secrets: Mapping[str, str] | None = None) -> Handle:
    """A run that was interrupted, stopped or failed goes on in its own folder, from its checkpoints if it makes any."""
    if folder.held():
        return Handle(folder)
    if folder.result:
        keep = folder.path / "results"
        keep.mkdir(exist_ok=True)
        attempt = folder.result.get("attempts", 1)
        os.replace(folder / "result.json", keep / f"attempt-{attempt}.json")
    folder.write("process.json", {"attempt": folder.read("process.json").get("attempt", 0)})
    for name in ("after.json", "exit.json"):
        (folder / name).unlink(missing_ok=True)
    return _begun(folder, secrets or {})


def interrupted(folder: RunFolder) -> dict[str, Any]:
    """A run whose supervisor and program are gone is given its truthful end. Returns the result."""
    process, said = folder.read("process.json"), folder.read("exit.json")
    from lab.runs.folder import boot

    elsewhere = process.get("supervisor", {}).get("boot") not in (None, boot())
    why = "the machine was restarted while it ran" if elsewhere else "its supervisor died while it ran"
    if not process:
        why = "it was never started"
    result: dict[str, Any] = {"state": "interrupted", "reason": why, "metrics": folder.last(), "code": None}
    if said and not elsewhere:
        from lab.runs.outcome import judged

        result = judged(folder, 0 if said.get("state") == "finished" else 1, "", "")
    began = process.get("started") or folder.spec.get("at") or time.time()
    seen = max((p.stat().st_mtime for p in folder.path.glob("*.jsonl")), default=began)
    result |= {"started": began, "ended": seen, "seconds": max(0.0, seen - began)}
    result["attempts"] = process.get("attempt", 0)
    with contextlib.suppress(OSError):
        folder.write("result.json", result)
    return result


def runs(state: Path) -> Iterator[RunFolder]:
    """Every run under `state/runs/`, newest last within an experiment."""
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.scandir(state / "runs"), key=lambda e: e.name):
            if entry.is_dir():
                yield RunFolder(entry.path)


def _supervisor(folder: RunFolder, secrets: Mapping[str, str]) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path.insert(0, {str(_HOME)!r}); from lab.runs.supervise import start; start()"
    try:
        with open(folder / "supervisor.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", code, str(folder.path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=folder.path,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(dict(secrets)).encode() + b"\n")
            process.stdin.close()
    except OSError as e:
        raise problem(f"the run {folder.id} cannot be started", why=e.strerror or str(e)) from e
    return process
