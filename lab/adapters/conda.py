"""conda, by rattler in a child process: solving, and installing what a lock says."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.core.problem import Problems, problem

_HOME = Path(__file__).resolve().parents[2]
Check = Callable[[], None]


class Child:
    """A process that performs one deed of `conda_child`; told which, it loads its libraries while it waits.

    It ends when this process does, however that ends: it watches a pipe whose other end is here.
    """

    def __init__(self, do: str = "") -> None:
        watched, self._alive = os.pipe()
        path = os.pathsep.join(filter(None, (str(_HOME), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lab.adapters.conda_child", str(watched), do],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "RUST_LOG": "off"},
            start_new_session=True,
            pass_fds=[watched],
        )
        os.close(watched)

    def ask(self, request: dict[str, Any], check: Check = lambda: None) -> Any:
        """What the deed answers; its fault as a problem. `check` may raise to cancel: the child is then ended."""
        import threading

        out: list[bytes] = []
        reader = threading.Thread(target=lambda: out.extend(self._process.communicate(json.dumps(request).encode())))
        reader.start()
        try:
            while reader.is_alive():
                check()
                reader.join(0.05)
        except BaseException:
            self.close()
            raise
        line = out[0].strip().rpartition(b"\n")[2] if out else b""
        if not line.startswith(b"{"):
            said = out[1].decode(errors="replace").strip()[-300:] if len(out) > 1 else ""
            raise problem(
                "the process that runs rattler ended without an answer",
                why=f"exit status {self._process.returncode}" + (f": {said}" if said else ""),
                do="try again; if it stays, `lab doctor` checks the installation of py-rattler and conda-lock",
            )
        answer = json.loads(line)
        if "fault" in answer:
            raise explained(answer["fault"])
        return answer["done"]

    def close(self) -> None:
        """The process is gone."""
        with contextlib.suppress(OSError):
            os.close(self._alive)
        self._alive = -1
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=5)


def ask(do: str, request: dict[str, Any], check: Check = lambda: None) -> Any:
    """One deed in a child process of its own."""
    child = Child()
    try:
        return child.ask({"do": do, **request}, check)
    finally:
        child.close()


def explained(fault: dict[str, Any]) -> Problems:
    """A fault of the child in our words. Pure."""
    kind, why = fault["kind"], str(fault.get("why", "")).strip()
    if kind == "unsatisfiable":
        return problem(
            f"no set of packages answers the spec on {fault['platform']}",
            why=why,
            do="loosen one of the conditions named, or add a channel that has the package",
        )
    if kind == "spec":
        return problem(f"`{fault['text']}` is no conda requirement", why=why, do="write it as `name >=1,<2`")
    if kind == "channel":
        return problem("a channel cannot be read", why=why, do="check its name or URL and the network")
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
            do="restore the channel, install from a bundle, or lock again",
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
