"""Zygote: a process that has imported Lab, and forks a child for each command; so a replay costs no imports.

Reads one JSON line per command (`{argv, env, fault, out}`), answers one with its exit status.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.hook import Fault
from tests.labs import REPO, Ran

IMPORTS = (
    "lab.cli.apply lab.cli.destroy lab.app.plan lab.app.destroy lab.adapters.files lab.adapters.fetch "
    "lab.adapters.store lab.adapters.clone lab.adapters.headers lab.adapters.datasets lab.adapters.experiments "
    "lab.adapters.child lab.app.gc lab.forecast.work lab.forecast.catalogue lab.cli._progress sqlite3 getpass"
)


class Zygote:
    """Runs `lab …` in children forked from one warm process."""

    def __init__(self, scratch: Path, preload: str = "") -> None:
        self.scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPO,
            env={**os.environ, "PYTHONPATH": str(REPO), **({"LD_PRELOAD": preload} if preload else {})},
        )

    def run(
        self, *argv: str, fault: Fault | None = None, env: Mapping[str, str] | None = None, broken: str = ""
    ) -> Ran:
        """One command; the code of a killed child is negative. `broken` names a guard to take away first."""
        out = str(self.scratch / "printed")
        request = {"argv": argv, "fault": fault and fault.to_json(), "out": out, "env": dict(env or {})}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({**request, "broken": broken}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ran(answer["code"], Path(out + ".out").read_text(), Path(out + ".err").read_text())

    def close(self) -> None:
        """The process is gone."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)


LIMIT = 256 << 20
"""Bytes a child may write into one file: what runs away is told as a failing write, and does not fill the machine."""


def _child(request: Mapping[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    for fd, end in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(request["out"] + end, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request["env"])
    sys.argv = ["lab", *request["argv"]]
    if request["broken"]:
        from tests.faults import broken

        broken.take_away(request["broken"])
    if request["fault"]:
        from tests.faults import hook

        hook.install(hook.Fault.from_json(request["fault"]))
    from lab.cli.main import run

    run()


def main() -> None:
    """Serves commands until its input ends."""
    import importlib

    from lab import kinds
    from lab.declare.compose import compose

    for name in (*IMPORTS.split(), "tests.faults.broken"):
        importlib.import_module(name)
    for kind in kinds.shipped():
        kinds.load(kind)
    compose(REPO / "conf", {})
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(request)
            except SystemExit as e:
                code = int(e.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
