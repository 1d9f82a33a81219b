"""A Dask cluster on hosts reached by this machine's own ssh: its keys, its agent, its configuration.

The first host has the scheduler, every one a worker. Each ends when its ssh connection does, however that comes about.
"""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lab.adapters.ssh import reach
from lab.core.problem import problem

PATIENCE = 60.0
"""Seconds for a host to answer."""
_BATCH = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")
_TIED = "{ %s; } & p=$!; cat >/dev/null; kill $p 2>/dev/null; wait $p"
"""A shell line whose program ends when nobody is at the other end any more."""


class Hosts:
    """Scheduler and workers, each behind an ssh process of ours."""

    def __init__(self, root: Path, hosts: Sequence[str], threads: int, python: str) -> None:
        self.parts: list[Part] = []
        self.root, self.python = root, python
        try:
            said = self._part(hosts[0], "dask_scheduler --port 0 --no-dashboard", "Scheduler at:")
            self.scheduler_address = said.rpartition("Scheduler at:")[2].strip()
            worker = f"dask_worker {self.scheduler_address} --nthreads {threads} --no-dashboard"
            for host in hosts:
                self._part(host, worker, "Registered to:")
        except BaseException:
            self.close()
            raise

    def _part(self, host: str, what: str, ready: str) -> str:
        """A program of Dask runs there; the line by which it said that it is ready."""
        destination, folder = reach(self.root, host)
        own = shlex.quote(sys.executable)
        find = f"P={shlex.quote(self.python)}" if self.python else f"P={own}; [ -x $P ] || P=.venv/bin/python"
        line = f"cd {folder} && {find} && " + _TIED % f"exec $P -m distributed.cli.{what}"
        ssh = shlex.split(os.environ.get("LAB_SSH", "ssh"))
        try:
            part = Part([*ssh, *_BATCH, destination, line])
        except OSError as e:
            raise problem("ssh cannot be started", why=e.strerror or str(e), do="install an ssh client") from e
        self.parts.append(part)
        done, said = part.until(ready)
        if not done:
            raise problem(
                f"no Dask cluster on {host}",
                why=said[:200],
                do=f"see that `ssh {host}` needs no password, and that Lab and distributed are installed there",
            )
        return said

    def close(self) -> None:
        """Nothing of it runs any more, here or there; trials in hand go on under their supervisors."""
        for part in reversed(self.parts):
            part.close()


class Part:
    """A program of Dask on another host; what it says is read to its end, so that it never waits to say more."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.said: queue.Queue[str] = queue.Queue(maxsize=1000)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with suppress(queue.Full):
                self.said.put_nowait(line.strip())
        with suppress(queue.Full):
            self.said.put_nowait("")

    def until(self, ready: str) -> tuple[bool, str]:
        """Whether it said so in time, and its last words."""
        last, end = "it says nothing", time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            try:
                line = self.said.get(timeout=left)
            except queue.Empty:
                break
            if ready in line:
                return True, line
            if not line and self.process.poll() is not None:
                break
            last = line or last
        return False, last

    def close(self) -> None:
        """It ends there, as its connection does."""
        with suppress(OSError):
            assert self.process.stdin
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
