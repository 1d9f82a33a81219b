"""Run: what user code says of itself, written to the run's folder at once.

Every call is one appended line, so a killed program loses nothing it said. A full disk or a missing folder costs the
points, never the program.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.sdk.config import Config
from lab.sdk.own import begin, describe, end


class Run:
    """One run's folder, as its own program writes it."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.folder = folder
        self.own = own
        """Whether this program started the run itself, so that it also says how it ended."""
        self.finished = False
        self.lost = 0
        """Points that could not be written."""
        self._files: dict[str, int] = {}
        self._step = _after(folder / "metrics.jsonl") if os.environ.get("LAB_RESUME") == "1" and not own else 0
        self._lock = threading.Lock()
        params = _json(folder / "params.json")
        self.config = Config(params, lambda k, v: self.event("param", name=k, value=v))
        self.seed = int(_json(folder / "spec.json").get("seed", 42))

    @property
    def id(self) -> str:
        """The run's name."""
        return self.folder.name

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Metrics at a step; without one, at the step after the last.

        Numbers, booleans and whatever `float()` takes (numpy, torch, mlx scalars) are metrics; NaN and infinities stay
        what they are. Nested mappings become dotted names. Anything else is noted as text with its step.
        """
        with self._lock:
            at = self._step if step is None else int(step)
            self._step = at + 1
            numbers: dict[str, float] = {}
            for name, value in _flat(values):
                number = _number(value)
                if number is None:
                    self.event("note", name=name, value=_text(value), step=at)
                else:
                    numbers[name] = number
            if numbers:
                self._append("metrics.jsonl", json.dumps([at, time.time_ns() // 1_000_000, numbers]))

    def event(self, kind: str, **details: Any) -> None:
        """Something said once: a parameter, a tag, an artifact."""
        said = json.dumps({"kind": kind, "at": time.time_ns() // 1_000_000, **details}, default=_text)
        self._append("events.jsonl", said)

    def _append(self, name: str, line: str) -> None:
        try:
            fd = self._files.get(name)
            if fd is None:
                fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                self._files[name] = fd
            data = (line + "\n").encode()
            written = os.write(fd, data)
            if written != len(data):
                raise OSError("the disk is full")
        except OSError as e:
            self.lost += 1
            if self.lost == 1:
                with contextlib.suppress(OSError):
                    print(f"lab: a point could not be written ({e}); the run goes on", file=sys.stderr)

    def finish(self, state: str = "finished", reason: str = "") -> None:
        """The run is over; saying it twice is saying it once."""
        if self.finished:
            return
        self.finished = True
        self.config.freeze()
        self.event("finish", state=state, reason=reason)
        if self.own:
            end(self.folder, state, reason)
        for fd in self._files.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self._files.clear()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: Any) -> None:
        self.finish("failed" if error else "finished", _reason(error) if error else "")


_current: Run | None = None


def current() -> Run:
    """The run in hand; begun by `init` or found in the environment."""
    return _current if _current is not None and not _current.finished else init()


def init(
    project: str = "",
    name: str = "",
    config: Mapping[str, Any] | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    describing: bool = True,
) -> Run:
    """The run this program is part of; outside Lab a run of its own, tracked by the next `lab` command.

    Raises RuntimeError where a run has been begun and not finished.
    """
    global _current
    if _current is not None and not _current.finished:
        raise RuntimeError(f"run {_current.id} has been begun already; call finish() first")
    inside = os.environ.get("LAB_RUN", "")
    run = Run(Path(inside), own=False) if inside else Run(begin(project, name, dict(config or {})), own=True)
    _current = run
    if inside and config:
        run.config.update({k: v for k, v in config.items() if k not in run.config})
    told = describe(project or name) if run.own or describing else {}
    for key, value in {**told, **(tags or {})}.items():
        run.event("tag", name=key, value=str(value))
    if run.own:
        _watch_the_end(run)
    return run


def _watch_the_end(run: Run) -> None:
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, at: Any) -> None:
        run.finish("failed", _reason(error))
        before(kind, error, at)

    sys.excepthook = hook
    atexit.register(run.finish)


class _Lazy(Mapping[str, Any]):
    """`lab.sdk.config`: the parameters of the run in hand."""

    def __getitem__(self, key: str) -> Any:
        return current().config[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        return getattr(current().config, key)

    def __setattr__(self, key: str, value: Any) -> None:
        current().config.update({key: value})

    def __iter__(self) -> Any:
        return iter(current().config)

    def __len__(self) -> int:
        return len(current().config)


config = _Lazy()


def log(values: Mapping[str, Any], step: int | None = None) -> None:
    """Metrics of the run in hand; see `Run.log`."""
    current().log(values, step)


def tag(name: str, value: Any) -> None:
    """A tag of the run in hand."""
    current().event("tag", name=name, value=str(value))


def finish(state: str = "finished") -> None:
    """The run in hand is over."""
    if _current is not None:
        _current.finish(state)


def seed() -> int:
    """The declared seed."""
    return current().seed


def outputs(name: str = "") -> Path:
    """Where the run's outputs go; with `name`, one declared output."""
    path = current().folder / "outputs"
    path.mkdir(exist_ok=True)
    return path / name if name else path


def checkpoints() -> Path:
    """Where the run keeps what it needs to go on after a kill."""
    path = current().folder / "checkpoints"
    path.mkdir(exist_ok=True)
    return path


def resumed() -> bool:
    """Whether this is a later attempt of a run that was interrupted: then look into `checkpoints()`."""
    return os.environ.get("LAB_RESUME") == "1"


def watch(model: Any, every: int = 100) -> None:
    """Norms of a torch module's parameters and gradients are logged every `every` backward passes."""
    run, seen = current(), [0]
    named = list(model.named_parameters())

    def after(_gradient: Any) -> None:
        seen[0] += 1
        if seen[0] % (every * len(named)) == 0:
            norms = {f"parameters.{n}.norm": p.detach().norm().item() for n, p in named}
            norms |= {f"gradients.{n}.norm": p.grad.norm().item() for n, p in named if p.grad is not None}
            run.log(norms)

    for _, parameter in named:
        if parameter.requires_grad:
            parameter.register_hook(after)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)[:2000]


def _reason(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))[-8000:]


def _after(path: Path) -> int:
    """The step after the last that an earlier attempt logged."""
    last = -1
    with contextlib.suppress(OSError), open(path, "rb") as f:
        for line in f:
            with contextlib.suppress(ValueError, TypeError, IndexError, KeyError):
                last = max(last, int(json.loads(line)[0]))
    return last + 1


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
