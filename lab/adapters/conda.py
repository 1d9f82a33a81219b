"""conda: solving and installing by rattler in a child process; locks written by conda-lock in this one."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab.adapters import condalock
from lab.core.problem import Problems, problem

IDLE = 5.0
"""Seconds for which a child waits for another deed."""
Check = Callable[[], None]


class Child:
    """A process that performs deeds of `conda_child`, one at a time, in one environment.

    It ends when this process does, however that ends: it watches a pipe whose other end is here.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.waiting = threading.Timer(IDLE, self.close)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        watched, self._alive = os.pipe()
        self._process = subprocess.Popen(
            # As a file: its package would be imported with it.
            [sys.executable, "-P", str(Path(__file__).with_name("conda_child.py")), str(watched)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environ,
            cwd="/",
            start_new_session=True,
            pass_fds=[watched],
        )
        os.close(watched)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def tell(self, request: dict[str, Any]) -> None:
        """It begins with a deed."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def ask(self, request: dict[str, Any], check: Check = lambda: None) -> Any:
        """What the deed answers; its fault as a problem. `check` may raise to cancel: the child is then ended."""
        assert self._process.stdout is not None
        out: list[bytes] = []
        reader = threading.Thread(target=lambda: out.extend(self._answer()))
        self.tell(request)
        reader.start()
        try:
            while reader.is_alive():
                check()
                reader.join(0.05)
        except BaseException:
            self.close()
            raise
        if not out:
            self.close()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()[-300:]
            raise problem(
                "the process that runs rattler ended without an answer",
                why=f"exit status {self._process.returncode}" + (f": {said}" if said else ""),
                do="try again; if it stays, `lab doctor` checks the installation of py-rattler and conda-lock",
            )
        answer = json.loads(out[0])
        if "fault" in answer:
            raise explained(answer["fault"])
        return answer["done"]

    def _answer(self) -> Iterator[bytes]:
        """The next line that is an answer, if one comes whole: its last may be cut short."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{") and line.endswith(b"\n"):
                yield line
                return

    def close(self) -> None:
        """The process is gone."""
        with contextlib.suppress(OSError):
            os.close(self._alive)
        self._alive = -1
        if self.alive:
            self._process.kill()
            self._process.wait(timeout=5)


_idle: list[Child] = []
_changing = threading.Lock()
_writing = threading.Lock()
"""Held while a lock is written: conda-lock's is Python's own time, of which there is one."""


@contextlib.contextmanager
def child() -> Iterator[Child]:
    """A child for a deed: one that is idle, else a new one; afterwards it waits a little for the next."""
    environ = {**os.environ, "RUST_LOG": "off"}
    environ.pop(condalock.MARK, None)  # it comes and goes while conda-lock is loaded
    with _changing:
        found = next((c for c in _idle if c.environ == environ and c.alive), None)
        if found:
            _idle.remove(found)
            found.waiting.cancel()
    found = found or Child(environ)
    try:
        yield found
    finally:
        with _changing:
            _idle.append(found)
            found.waiting = threading.Timer(IDLE, _end, [found])
            found.waiting.daemon = True
            found.waiting.start()


def _end(waited: Child) -> None:
    """A child that is still idle is gone."""
    with _changing:
        if waited not in _idle:
            return
        _idle.remove(waited)
    waited.close()


@atexit.register
def rest() -> None:
    """No child is idle: each has ended, and what it cost counts as this process's."""
    with _changing:
        waited = [*_idle]
        _idle.clear()
    for found in waited:
        found.waiting.cancel()
        found.close()


def ask(do: str, request: dict[str, Any], check: Check = lambda: None) -> Any:
    """One deed in a child process."""
    with child() as found:
        return found.ask({"do": do, **request}, check)


def ready(solving: bool) -> None:
    """A lock is soon to be written: conda-lock is being loaded, and so is rattler, which is asked before."""
    if solving:
        with child() as found:
            found.tell({"do": "load"})
    threading.Thread(target=_load, daemon=True).start()


def _load() -> None:
    # What fails here fails, and is told, when a lock is written.
    with contextlib.suppress(Exception):
        condalock.load()


def write(request: dict[str, Any]) -> None:
    """A conda-lock v1 file with these packages, through the conda-lock package, and the two files it answers."""
    try:
        with _writing:
            condalock.write(request)
    except Exception as e:
        raise explained({"kind": "unexpected", "why": f"{type(e).__name__}: {e}"}) from e


def _cause(chain: str) -> str:
    """What a chain of causes comes down to, and the address that was asked. Pure."""
    last = chain.rpartition("Caused by:")[2].strip()
    url = re.search(r"\((https?://[^)\s]+)\)", chain)
    return f"{url[1]}: {last}" if url and url[1] not in last else last


def explained(fault: dict[str, Any]) -> Problems:
    """A fault of the child in our words. Pure."""
    kind, why = fault["kind"], str(fault.get("why", "")).strip()
    if kind == "unsatisfiable":
        own = "candidates were found for pip " in why
        return problem(
            f"no set of packages answers the spec on {fault['platform']}",
            why=why,
            do="add a channel that has `pip`: a lock asks for conda's own wherever `pip:` has packages"
            if own
            else "loosen one of the conditions named, or add a channel that has the package",
        )
    if kind == "spec":
        return problem(f"`{fault['text']}` is no conda requirement", why=why, do="write it as `name >=1,<2`")
    if kind == "channel":
        return problem("a channel cannot be read", why=_cause(why), do="check its name or URL and the network")
    if kind == "hash":
        what = fault.get("package") or "a package"
        return problem(
            f"the archive of {what} is not the one that was locked",
            why=why or f"{fault['url']} has sha256 {fault['found'][:12]}…, the lock says {fault['expected'][:12]}…",
            do="restore the archive; if the channel really replaced it, lock again and review what moved",
        )
    if kind == "gone":
        return problem(
            f"{fault['package']} is gone from its channel",
            why=f"{fault['url']} is not there",
            do="restore the channel, or lock again; a `lab bundle` made while it was there holds it for `lab rebuild`",
        )
    if kind == "offline":
        return problem(
            "a conda package is not here, and the lab is offline",
            why=f"`offline: true` refuses every connection but loopback; {why}",
            do="apply it once where the lab may connect, or `lab rebuild` from a `lab bundle`, which needs no network",
        )
    if kind == "install":
        return problem(
            "the conda packages cannot be installed", why=why, do="check the network, the disk and the channel"
        )
    if why.startswith("ModuleNotFoundError"):
        return problem(
            "envs need rattler and conda-lock, which are not installed here", why=why, do="pip install 'llm-lab[envs]'"
        )
    return problem("rattler or conda-lock failed unexpectedly", why=why, do="run it again; report it if it stays")


def evict(cache: Path, packages: list[str]) -> None:
    """The cache holds no unpacked copy of these packages (`name-version-build` stems or names), damaged or not."""
    import shutil

    for name in packages:
        for entry in (cache / "pkgs").glob(f"{name}-*-*"):
            if entry.name.rsplit("-", 2)[0] == name or entry.is_file():
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
