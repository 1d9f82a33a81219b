"""Supervise: the process that stands over one run, from its start to its result.

It is started by file, needs nothing but the run's folder, and outlives the terminal, the SSH session and the `lab`
that started it. It alone writes `process.json` and `result.json`. The run's lease is a kernel lock that the program
inherits, so a run is known to live as long as either of them does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lab.core.masking import know, masked
from lab.runs.after import after, named
from lab.runs.cards import visible
from lab.runs.checkpoints import prune
from lab.runs.early import reached
from lab.runs.folder import RunFolder, put, who
from lab.runs.outcome import judged, oom_kills
from lab.runs.prefix import Prefix

PATIENCE = 24 * 3600.0
"""Seconds a finished run waits for room on its disk to say how it ended."""
GRACE = 5.0
"""Seconds between asking a run to stop and making it stop."""


def main(path: str) -> int:
    """Runs what the folder's spec says, at most once at a time; 0 when a result is in place."""
    folder = RunFolder(path)
    lease = open(folder / "lease", "w")  # noqa: SIM115 - held until this process ends
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    if (folder / "result.json").exists():
        return 0
    told = sys.stdin.buffer.readline()
    if not told.endswith(b"\n"):
        return 1  # who started it was killed before it could say the secrets: it never began
    secrets: dict[str, str] = json.loads(told)
    for value in secrets.values():
        know(value)
    return Supervisor(folder, lease, secrets).run()


class Supervisor:
    """One run, attempt by attempt."""

    def __init__(self, folder: RunFolder, lease: IO[str], secrets: dict[str, str]) -> None:
        self.folder = folder
        self.lease = lease
        self.secrets = secrets
        self.spec = folder.spec
        self.began, self.mark = time.time(), time.monotonic()
        """When it began, for people; and to measure by: that clock is never set."""
        self.child: subprocess.Popen[bytes] | None = None
        self.paused = False
        self.prefix = Prefix(str(self.spec.get("prefix") or ""))
        self.cards: tuple[str, ...] = ()
        """Those it was given."""
        self.why = ""
        """Why we ended it: `stopped`, `timed out`, `out of memory`; empty while we have not."""
        self.reason = ""
        self.over = threading.Event()

    def run(self) -> int:
        """Attempts until one finishes or the retries are used up; then the result is in place."""
        signal.signal(signal.SIGTERM, lambda *_: self.end("stopped", "`lab stop` asked it to"))
        signal.signal(signal.SIGINT, lambda *_: self.end("stopped", "interrupted"))
        signal.signal(signal.SIGUSR1, lambda *_: self.pause(True))
        signal.signal(signal.SIGUSR2, lambda *_: self.pause(False))
        tracker = self._tracker()
        retries = int(self.spec.get("retries", 0))
        attempt = int(self.folder.read("process.json").get("attempt", 0))
        result: dict[str, Any] = {}
        try:
            with self._admitted():
                self.began, self.mark = time.time(), time.monotonic()
                for left in range(retries, -1, -1):
                    attempt += 1
                    result = self._attempt(attempt, tracker)
                    if result["state"] in ("finished", "stopped") or not left:
                        break
                    self._log(f"lab: attempt {attempt} {result['state']}: {result['reason']}; {left} more to try\n")
                    if self.over.wait(float(self.spec.get("backoff", 0)) * 2 ** (retries - left)):
                        result |= {"state": self.why, "reason": self.reason}
                        break
        except _Refused as e:
            result = {"state": self.why or "failed", "reason": self.reason or str(e), "metrics": {}, "code": None}
        result |= {"attempts": attempt, "started": self.began, "ended": time.time()}
        result["seconds"] = time.monotonic() - self.mark
        self._settle(result)
        after(self.folder, self._log)
        fcntl.flock(self.lease, fcntl.LOCK_UN)
        if tracker is not None:
            tracker.end()
        return 0

    def _admitted(self) -> contextlib.AbstractContextManager[Any]:
        """What it needs of memory and cards is its own while the block runs; before, it stands in the host's queue."""
        spec = self.spec
        total = spec.get("total") or 0
        need = (spec.get("expects") or spec.get("memory") or 0) if total else 0
        if not (spec.get("admit") and (need or spec.get("cards") or spec.get("quotas"))):
            return contextlib.nullcontext()
        told = self.folder.read("process.json")

        def wait(reason: str) -> None:
            process = {**told, "supervisor": who(os.getpid()), "waiting": reason}
            with contextlib.suppress(OSError):
                self.folder.write("process.json", process, durable=False)

        def check() -> None:
            if self.over.is_set():
                raise _Refused(self.reason)

        return _admitting(named(spec["admit"])(self.folder, need, total, check, wait), self._given)

    def _given(self, promise: Any) -> None:
        self.cards = tuple(promise.cards)

    def _attempt(self, attempt: int, tracker: Any) -> dict[str, Any]:
        folder, spec = self.folder, self.spec
        (folder / "exit.json").unlink(missing_ok=True)
        for name in ("artifacts", "outputs", "checkpoints"):
            (folder / name).mkdir(exist_ok=True)
        pipe = bool(self.secrets) or bool(spec.get("patterns"))
        began, mark = time.time(), time.monotonic()
        before = self.why
        if before:
            return {"state": before, "reason": self.reason}
        me: dict[str, Any] = {"supervisor": who(os.getpid()), "attempt": attempt, "started": began, "oom": oom_kills()}
        me |= {"cards": list(self.cards)} if self.cards else {}
        with contextlib.suppress(OSError):
            folder.write("process.json", me, durable=False)  # the next, which names the program, is
        with open(folder / "output.log", "ab", buffering=0) as log:
            try:
                self.child = subprocess.Popen(
                    [self.prefix.pinned(word) for word in spec["argv"]],
                    cwd=spec["cwd"],
                    env=self._environment(attempt),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipe else log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(self.lease.fileno(), *self.prefix.held),
                )
            except OSError as e:
                return {"state": "failed", "reason": f"{spec['argv'][0]} could not be started: {e.strerror}"}
            if self.why:
                self._signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                folder.write("process.json", {**me, "child": who(self.child.pid)})
            if tracker is not None and attempt == 1:
                tracker.start()
            ended = threading.Event()
            watch = threading.Thread(target=self._watch, args=(mark, self.child.pid, ended), daemon=True)
            watch.start()
            if pipe:
                self._pump(log)
            _, status, usage = os.wait4(self.child.pid, 0)
            self.child.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        self.over.set()
        with contextlib.suppress(OSError):
            os.killpg(self.child.pid, signal.SIGKILL)
        watch.join(GRACE)
        code, self.child = self.child.returncode, None
        if self.spec.get("keep"):
            with contextlib.suppress(Exception):
                prune(self.folder)
        if tracker is not None:
            tracker.gather()
        why = self.why
        if why != "stopped":
            self.over.clear()
        scale = 1 if sys.platform == "darwin" else 1024
        result = judged(folder, code, why, self.reason)
        result["reason"] = masked(str(result.get("reason", "")))
        return {**result, "max_rss": usage.ru_maxrss * scale, "cpu_seconds": usage.ru_utime + usage.ru_stime}

    def _environment(self, attempt: int) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("LAB_RUN")}
        env.update({k: self.prefix.pinned(str(v)) for k, v in self.spec.get("env", {}).items()})
        env.update(visible(self.cards))
        env.update(self.secrets)
        env["LAB_RUN"] = str(self.folder.path)
        env["LAB_PARAMS"] = str(self.folder / "params.json")
        if attempt > 1:
            env["LAB_RESUME"] = "1"
        return env

    def _settle(self, result: dict[str, Any]) -> None:
        """The result is in place; where the disk is full it is tried again until there is room."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.folder.write("result.json", result)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    # --- ending it ----------------------------------------------------------------------------------------------

    def end(self, why: str, reason: str) -> None:
        """The run is asked to end, and made to after a while."""
        if not self.why:
            self.why, self.reason = why, reason
        self.over.set()
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        child = self.child

        def kill() -> None:
            if child is not None and child.returncode is None:
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(float(self.spec.get("grace", GRACE)), kill)
        timer.daemon = True
        timer.start()

    def pause(self, paused: bool) -> None:
        """The whole group is frozen, or goes on."""
        self.paused = paused
        self._signal(signal.SIGSTOP if paused else signal.SIGCONT)
        self.folder.write("process.json", {**self.folder.read("process.json"), "paused": paused})

    def _signal(self, number: signal.Signals) -> None:
        if self.child is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.child.pid, number)

    # --- watching it --------------------------------------------------------------------------------------------

    def _watch(self, began: float, pid: int, ended: threading.Event) -> None:
        """Samples, timeout, memory limit and early stop, until the attempt is over or has ended."""
        timeout, limit, expects, total = (self.spec.get(n) for n in ("timeout", "memory", "expects", "total"))
        every = float(self.spec.get("sample", 5.0))
        drowning = self.spec.get("drowning") if expects and total and not limit else None
        sampler: Any = None
        next_sample, paused, last = time.monotonic() + min(0.3, every), 0.0, time.monotonic()
        while not (self.over.wait(0.1) or ended.is_set()):
            now = time.monotonic()
            if self.paused:
                paused += now - last
            last = now
            if timeout and now - began - paused > float(timeout):
                self.end("timed out", f"it ran longer than {timeout:g} s")
            if now < next_sample and not ((limit or expects) and sampler):
                continue
            with contextlib.suppress(Exception):
                if sampler is None:
                    from lab.runs.sample import Sampler

                    sampler = Sampler(pid, self.cards)
                if limit and (used := sampler.memory()) > limit:
                    self.end("out of memory", f"it used {used / 1e6:.0f} MB of the {limit / 1e6:.0f} MB it may")
                if drowning and (reason := named(drowning)(sampler.memory(), expects, total)):
                    self.end("out of memory", reason)
                if now >= next_sample:
                    next_sample = now + every
                    figures = sampler.read(self.folder.path)
                    if ended.is_set():
                        return  # what comes after it has ended is none of its figures
                    point = json.dumps([int(now - self.mark), int(time.time() * 1000), figures])
                    with open(self.folder / "system.jsonl", "a") as f:
                        f.write(point + "\n")
            if self.spec.get("keep"):
                with contextlib.suppress(Exception):
                    prune(self.folder)
            if stop := self.spec.get("stop"):
                with contextlib.suppress(Exception):
                    if reason := reached(self.folder, stop):
                        self.end("finished", reason)

    def _pump(self, log: IO[bytes]) -> None:
        """What the program prints goes to its log line by line, secrets masked, declared patterns read as metrics."""
        assert self.child is not None
        assert self.child.stdout is not None
        lines = {line for s in self.secrets.values() for line in (s, *s.splitlines()) if line.strip()}
        hidden = [s.encode() for s in sorted(lines, key=len, reverse=True)]
        patterns = [(n, re.compile(p.encode())) for n, p in self.spec.get("patterns", {}).items()]
        # A later attempt goes on where the one before ended: the last value is the last attempt's.
        seen = {n: self._steps().get(n, 0) for n, _ in patterns}
        for raw in self.child.stdout:
            line = raw
            for secret in hidden:
                line = line.replace(secret, b"***")
            with contextlib.suppress(OSError):
                log.write(line)
            for name, pattern in patterns:
                if m := pattern.search(line):
                    with contextlib.suppress(ValueError, IndexError):
                        point = [seen[name], int(time.time() * 1000), {name: float(m[1])}]
                        seen[name] += 1
                        with open(self.folder / "metrics.jsonl", "a") as f:
                            f.write(json.dumps(point) + "\n")

    def _steps(self) -> dict[str, int]:
        """The step after the last of every metric logged so far."""
        after: dict[str, int] = {}
        for step, _, values in self.folder.metrics():
            after.update({n: max(after.get(n, 0), step + 1) for n in values})
        return after

    def _log(self, text: str) -> None:
        with contextlib.suppress(OSError), open(self.folder / "output.log", "a") as f:
            f.write(text)

    def _tracker(self) -> Any:
        """What ships the run to its tracker, found by name; None where it cannot be had: tracking never stops a run."""
        name = self.spec.get("tracker", {}).get("shipper")
        if not name:
            return None
        try:
            return named(name)(self.folder)
        except Exception as e:
            put(self.folder / "tracking.log", f"{type(e).__name__}: {e}\n")
            return None


class _Refused(Exception):
    """The run was not let in."""


@contextlib.contextmanager
def _admitting(promise: contextlib.AbstractContextManager[Any], tell: Callable[[Any], None]) -> Iterator[None]:
    """The promise is held while the block runs; that it cannot be given is told apart from what the block raises."""
    try:
        tell(promise.__enter__())
    except _Refused:
        raise
    except Exception as e:
        found = getattr(e, "problems", None)
        raise _Refused(f"{found[0].summary}: {found[0].why}" if found else f"{type(e).__name__}: {e}") from e
    try:
        yield
    finally:
        promise.__exit__(None, None, None)


def fence() -> None:
    """No core files: they may hold secrets."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def start() -> None:
    """The supervisor's own beginning: `sys.argv[1]` is the run's folder."""
    fence()
    os.umask(os.umask(0o022) | 0o022)
    os.chdir(Path(sys.argv[1]))
    sys.exit(main(sys.argv[1]))
