"""Child: heavy native work in a process of its own, so that its crash, its memory and its log are its own.

The parent sends one JSON line and keeps the pipe open; when it closes, however the parent ended, the child ends too.
The child answers in JSON lines: progress, a result or a problem. What libraries print goes to a log file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from lab.core.facts import Facts
from lab.core.problem import Problem, Problems, problem
from lab.runs.outcome import oom_kills


class Progress(Protocol):
    """What a child's work is given to say how far it is."""

    def __call__(self, done: float, total: float | None = None, unit: str = "B") -> None: ...


class Watcher(Protocol):
    """The part of a stage that a parent needs."""

    def progress(self, done: float, total: float | None = None, unit: str = "B") -> None: ...
    def say(self, text: str) -> None: ...
    def check(self) -> None: ...


def run(
    target: str, args: Mapping[str, Any], *, log: Path, watch: Watcher | None = None, what: str = "the work"
) -> dict[str, Any]:
    """What `module:function(args, progress)` returned in a child, with `memory`: its peak bytes.

    Raises the child's own problem; a crash is a problem that names the signal and the last line of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *paths()])}
    env |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **preload()}
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.adapters.child", target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            env=env,
            start_new_session=True,
        )
    assert process.stdin
    assert process.stdout
    promised, stopped, kills = int(getattr(watch, "promised", 0)), "", oom_kills()
    try:
        with contextlib.suppress(BrokenPipeError):  # It ended before it could be asked: how, is told below.
            process.stdin.write(json.dumps(args).encode() + b"\n")
            process.stdin.flush()
        result = None
        with _guarded(process.pid, promised) as seen:
            for message in messages(process.stdout, watch):
                if "progress" in message and watch:
                    watch.progress(*message["progress"])
                elif "problem" in message:
                    process.wait()
                    raise Problems(Problem(**message["problem"]))
                elif "result" in message:
                    result = message
            code = process.wait()
        stopped = seen.stopped if seen else ""
    finally:
        stop(process)
    if stopped:
        raise problem(f"{what} was stopped before the machine would swap", why=stopped, do="close other programs")
    if code == -signal.SIGKILL and oom_kills() > kills:
        raise problem(
            f"{what} ran out of memory",
            why="the system ended it: the memory that Lab may use here was full",
            do="close other programs, or give Lab a larger share; what was finished is kept",
        )
    if code or result is None:
        cause = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"
        raise problem(f"{what} did not finish", why=f"{cause}: {tail(log)}", do=f"see {log}; then run it again")
    return {**result["result"], "memory": result["memory"]}


def _guarded(pid: int, promised: int) -> contextlib.AbstractContextManager[Any]:
    """While the block runs, a child that outgrows what it was let in for is stopped once memory runs out."""
    if not promised:
        return contextlib.nullcontext()
    from lab.adapters import footprint

    return footprint.watch(pid, promised, every=0.5, scarce=footprint.scarce)


def stop(process: subprocess.Popen[bytes]) -> None:
    """The child is gone and reaped."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def preload() -> dict[str, str]:
    """The environment that lays a fast BLAS over the slow one MLX's linux build brings; empty where none is found."""
    if sys.platform != "linux" or "LD_PRELOAD" in os.environ:
        return {}
    for folder in sorted(Path("/usr/lib").glob("*-linux-gnu")):
        for name in ("openblas-pthread/libopenblas.so.0", "libopenblas.so.0"):
            if (folder / name).exists():
                return {"LD_PRELOAD": str(folder / name)}
    return {}


def tail(log: Path) -> str:
    """The last line of a log that is not empty."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else "nothing was logged"


def peak() -> int:
    """Peak resident bytes of this process."""
    # ru_maxrss of Linux carries the parent's peak across exec; VmHWM does not.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def paths() -> list[str]:
    """What PYTHONPATH already names."""
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


def messages(pipe: IO[bytes], watch: Watcher | None) -> Iterator[dict[str, Any]]:
    """A child's JSON lines as they come, without what else it printed; the wish to stop is heard between them."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if watch:
                watch.check()
            if not selector.select(0.2):
                continue
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    if isinstance(message := json.loads(line), dict):
                        yield message


def _work(target: str) -> int:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    args: Facts = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()

    def progress(done: float, total: float | None = None, unit: str = "B") -> None:
        out.write(json.dumps({"progress": [done, total, unit]}) + "\n")

    try:
        module, _, name = target.partition(":")
        result = getattr(importlib.import_module(module), name)(args, progress)
        out.write(json.dumps({"result": result, "memory": peak()}) + "\n")
    except Problems as e:
        out.write(json.dumps({"problem": e.problems[0].to_json()}) + "\n")
    except ImportError as e:
        found = missing(e)
        traceback.print_exc()
        out.write(json.dumps({"problem": found.problems[0].to_json()}) + "\n")
    except MemoryError:
        traceback.print_exc()
        out.write(
            json.dumps(
                {"problem": Problem("not enough memory", do="close what is large, or choose a smaller type").to_json()}
            )
            + "\n"
        )
    except OSError as e:
        traceback.print_exc()
        why = e.strerror or str(e)
        out.write(
            json.dumps({"problem": Problem(f"{e.filename or 'a file'} cannot be used", why=why).to_json()}) + "\n"
        )
    out.flush()
    return 0


EXTRAS = {
    "mlx": "mlx",
    "mlx_lm": "mlx",
    "llama_cpp": "llama",
    "torch": "torch",
    "transformers": "torch",
    "gguf": "models",
    "numpy": "models",
    "tokenizers": "models",
    "safetensors": "models",
}
"""Package that may be missing → the extra that brings it."""


def missing(error: ImportError) -> Problems:
    """The problem behind an import that failed: which extra to install."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return problem(
            f"a Python package cannot be imported: {package or error}", why=str(error), do="see `lab doctor`"
        )
    return problem(
        f"{package} is not installed",
        why="an optional part of Lab needs it",
        do=f"install it: pip install 'llm-lab[{extra}]'",
    )


def end_with_parent() -> None:
    """Ends this process when its standard input closes: then whoever started it has ended."""
    sys.stdin.read()
    os._exit(3)


if __name__ == "__main__":
    code = _work(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries tear down badly at times; what was to be done is done and written.
    os._exit(code)
