"""Hook: every effect of this process below one folder is counted, and the chosen one is killed or made to fail.

A boundary is the moment before an effect: a file opened for writing, written, synced, renamed, removed, linked, made
or given other bits, a folder made or removed, an SQLite statement that writes, a step handed to its performer or taken
back. Killed before each of them, a process has been killed everywhere between two effects.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter as Tally
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

_OPEN, _WRITE = os.open, os.write
_SQL = {
    errno.ENOSPC: "database or disk is full",
    errno.EIO: "disk I/O error",
    errno.EROFS: "attempt to write a readonly database",
    errno.EMFILE: "unable to open database file",
}


RANDOM = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{4,12}|[0-9]{2,})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to go wrong, and where."""

    below: str
    """Only effects on paths below this folder count."""
    log: str
    """One JSON line per boundary and per performed step."""
    at: int = 0
    """Number of the boundary, from 1, among those of the site, or among all; 0 only counts."""
    site: str = ""
    """What is aimed at, as `Counter.site` names it: threads take turns as they like, what they do stays the same."""
    how: str = "kill"
    """`kill`, `tear` (half a write, then a kill), `short` (half a write, then ENOSPC), `child` (a started process is
    killed), `clock:SECONDS` (the wall clock jumps; needs `shim.c`), or a name of `errno`."""
    lasting: bool = False
    """Whether every effect of the same sort fails from there on."""
    who: str = ""
    """Whose effect it is: empty for the apply itself, `child` for its heavy work, `supervisor` for what stands over a
    run."""
    raising: bool = False
    """Whether a kill is an exception instead, for use in the test's own process."""

    @classmethod
    def from_json(cls, text: str) -> Fault:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Killed(BaseException):
    """Stands for SIGKILL where the process must live on."""


class Counter:
    """Counts boundaries; strikes at the chosen one."""

    def __init__(self, fault: Fault, me: str = "") -> None:
        self.fault, self.me = fault, me
        self.count = 0
        self.sites: Tally[str] = Tally()
        self.struck = self.dead = False
        self.turn = threading.RLock()
        self.log = _OPEN(fault.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def say(self, **line: Any) -> None:
        _WRITE(self.log, (json.dumps(line) + "\n").encode())

    def mine(self, path: Any) -> str:
        """The path as text where it counts, else empty."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return ""
        try:
            text = os.path.abspath(os.fsdecode(path))
        except TypeError:
            return ""
        return text if text.startswith(self.fault.below) else ""

    def site(self, name: str, where: str, what: str) -> str:
        """What happens and where, the same in every run: random names, processes and times in it are stars."""
        return RANDOM.sub("*", f"{name} {where} {what}".replace(self.fault.below, "").strip())

    def boundary(
        self,
        name: str,
        path: Any,
        half: Callable[[], Any] | None = None,
        *,
        sql: bool = False,
        source: Any = "",
        what: str = "",
    ) -> None:
        """The moment before an effect."""
        where = self.mine(path)
        if self.dead:
            raise Killed
        if where:
            with self.turn:
                if self._counted(name, where, self.mine(source) if source else "", what):
                    self._strike(name, where, half, sql)

    def _counted(self, name: str, where: str, source: str, what: str) -> bool:
        """Whether this boundary is a chosen one."""
        fault, site = self.fault, self.site(name, where, what)
        self.count += 1
        self.sites[site] += 1
        nth = self.sites[site]
        number = {"inner": self.me} if self.me else {"n": self.count}
        self.say(**number, at=name, path=where, source=source, site=site, nth=nth)
        if self.me != fault.who:
            return False
        if self.struck:
            return fault.lasting
        self.struck = bool(fault.at) and fault.at == (nth if fault.site else self.count) and fault.site in ("", site)
        if self.struck:
            self.say(struck=site)
        return self.struck

    def _strike(self, name: str, where: str, half: Callable[[], Any] | None, sql: bool) -> None:
        fault = self.fault
        if fault.how in ("kill", "tear"):
            if fault.how == "tear" and half:
                half()
            if fault.raising:
                self.dead = True
                raise Killed
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.how == "child":
            if half:
                half()
            return
        if fault.how.startswith("clock"):
            with open(os.environ["LAB_SHIM_CLOCK"], "w") as clock:
                clock.write(fault.how.partition(":")[2])
            return
        if name in ("step", "stepped", "spawn", "spawned"):
            return
        code = errno.ENOSPC if fault.how == "short" else getattr(errno, fault.how)
        if fault.how == "short" and half:
            half()
        if sql:
            raise sqlite3.OperationalError(_SQL[code])
        raise OSError(code, os.strerror(code), where)


class _File:
    """A file open for writing, whose writes count."""

    def __init__(self, file: Any, counter: Counter, path: Any) -> None:
        self._file, self._counter, self._path = file, counter, path

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        self._counter.boundary("write", self._path, half)
        return int(self._file.write(data))

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def install(fault: Fault, me: str = "") -> Callable[[], None]:
    """Every effect of this process counts from now on; returns what takes that back."""
    counter = Counter(fault, me)
    undo: list[Callable[[], None]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        old = getattr(owner, name)
        undo.append(lambda: setattr(owner, name, old))
        setattr(owner, name, value)

    def plain(name: str, which: int = 0) -> None:
        old = getattr(os, name)

        def wrapped(*args: Any, **kw: Any) -> Any:
            counter.boundary(name, args[which], source=args[0] if which else "")
            return old(*args, **kw)

        put(os, name, wrapped)

    for name in ("unlink", "remove", "rmdir", "mkdir", "fsync", "chmod", "fchmod", "ftruncate", "truncate", "utime"):
        plain(name)
    for name in ("replace", "rename", "link", "symlink"):
        plain(name, 1)
    old_pwrite = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        counter.boundary("write", fd, lambda: old_pwrite(fd, data[: len(data) // 2], offset))
        return old_pwrite(fd, data, offset)

    put(os, "pwrite", pwrite)

    def os_open(path: Any, flags: int, *args: Any, **kw: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            counter.boundary("open", path)
        return _OPEN(path, flags, *args, **kw)

    put(os, "open", os_open)

    def opener(old: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Any, mode: str = "r", *args: Any, **kw: Any) -> Any:
            if not set(mode) & set("wax+") or not counter.mine(file):
                return old(file, mode, *args, **kw)
            if not isinstance(file, int):
                counter.boundary("open", file)
            return _File(old(file, mode, *args, **kw), counter, counter.mine(file))

        return wrapped

    put(builtins, "open", opener(builtins.open))
    put(io, "open", opener(io.open))
    _sqlite(counter, put)
    _children(counter, put)
    if "lab.adapters" in sys.modules:
        _steps(counter, put)
    if "lab.adapters.clone" in sys.modules:
        _exchanges(counter, put)
    return lambda: [back() for back in reversed(undo)] and None


def _sqlite(counter: Counter, put: Callable[[Any, str, Any], None]) -> None:
    old = sqlite3.connect

    def connect(path: Any, *args: Any, **kw: Any) -> Any:
        if kw.get("uri") or not counter.mine(path):
            return old(path, *args, **kw)

        class Connection(sqlite3.Connection):
            def _before(self, text: str) -> None:
                word = text.split(None, 1)[0].upper()
                if word not in ("SELECT", "ROLLBACK") and not (word == "PRAGMA" and "journal" not in text):
                    what = " ".join(text.split()[:3])
                    counter.boundary(f"sqlite {word.strip(';').split(';')[0]}", path, sql=True, what=what)

            def execute(self, text: str, *a: Any) -> Any:  # type: ignore[override]
                self._before(text)
                return super().execute(text, *a)

            def executemany(self, text: str, *a: Any) -> Any:  # type: ignore[override]
                self._before(text)
                return super().executemany(text, *a)

            def executescript(self, text: str) -> Any:  # type: ignore[override]
                self._before(text)
                return super().executescript(text)

            def __exit__(self, *error: Any) -> Any:
                if error[0] is None:
                    self._before("COMMIT")
                return super().__exit__(*error)

        return old(path, *args, **{**kw, "factory": Connection})

    put(sqlite3, "connect", connect)


def _children(counter: Counter, put: Callable[[Any, str, Any], None]) -> None:
    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, args: Any, *rest: Any, **kw: Any) -> None:
            words = args.split() if isinstance(args, str) else [os.fsdecode(a) for a in args]
            what = " ".join(w.rpartition("/")[2][:40] for w in words[:4] if "\n" not in w)
            counter.boundary("spawn", counter.fault.below, what=what)
            super().__init__(_hooked(args, counter.fault), *rest, **kw)
            counter.boundary("spawned", counter.fault.below, self.kill, what=what)

    put(subprocess, "Popen", Popen)


_SUPERVISOR = "from lab.runs.supervise import start"


def _hooked(args: Any, fault: Fault) -> Any:
    """The command of a process of Lab's own, whose effects count as well; any other as it is."""
    words = list(args) if isinstance(args, list | tuple) else []
    if words[1:3] == ["-m", "lab.adapters.child"]:
        code = f"{_begins(fault, 'child')}; import runpy; runpy.run_module('lab.adapters.child', run_name='__main__')"
        return [words[0], "-c", code, *words[3:]]
    if len(words) > 3 and _SUPERVISOR in str(words[3]):
        return [*words[:3], f"{_begins(fault, 'supervisor')}; {words[3]}", *words[4:]]
    return args


def _begins(fault: Fault, who: str) -> str:
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    load = f"import sys; sys.path.insert(0, {top!r}); from tests.faults import hook"
    return f"{load}; hook.install(hook.Fault.from_json({fault.to_json()!r}), {who!r})"


def _exchanges(counter: Counter, put: Callable[[Any, str, Any], None]) -> None:
    from lab.adapters import clone

    old = clone.exchange

    def exchange(a: Any, b: Any) -> None:
        counter.boundary("exchange", b, source=a)
        old(a, b)

    put(clone, "exchange", exchange)


def _steps(counter: Counter, put: Callable[[Any, str, Any], None]) -> None:
    from lab import adapters

    old = adapters.performer

    def performer(verb: str) -> Callable[..., Any]:
        perform = old(verb)

        def wrapped(step: Any, stage: Any) -> Any:
            pairs = zip(step, stage, strict=True) if isinstance(step, list) else [(step, stage)]
            told = [(s.address, p.describe()) for p, s in pairs]
            what = "; ".join(f"{address}: {text}" for address, text in told)
            counter.boundary("step", counter.fault.below, what=what)
            for address, text in told:
                counter.say(perform=address, text=text)
            found = perform(step, stage)
            counter.boundary("stepped", counter.fault.below, what=what)
            return found

        return wrapped

    put(adapters, "performer", performer)


def read(log: str) -> list[dict[str, Any]]:
    """What a log says; a last line that was cut is left out."""
    found = []
    with suppress(FileNotFoundError), open(log) as f:
        for line in f:
            with suppress(ValueError):
                found.append(json.loads(line))
    return found
