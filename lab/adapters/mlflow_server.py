"""MLflow's own server and its pages, started lean: no jobs, no telemetry, one worker; two processes instead of ten."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from lab.adapters import mlflow_local
from lab.core.problem import problem
from lab.runs.folder import alive, put, who


def command(db: Path, artifacts: Path, host: str, port: int) -> list[str]:
    """The command line. Pure."""
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", mlflow_local.uri(db),
        "--default-artifact-root", artifacts.absolute().as_uri(), "--serve-artifacts",
        "--artifacts-destination", str(artifacts.absolute()), "--host", host, "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """What makes it lean. Pure but for the environment it starts from."""
    lean = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    return {**os.environ, **lean}


def serve(state: Path, host: str = "127.0.0.1", port: int = 5000, seconds: float = 90) -> dict[str, Any]:
    """The server answers; the one that runs already, or a new one. Raises Problems where it does not come up."""
    known = running(state)
    if known:
        return known
    if importlib.util.find_spec("mlflow") is None:
        raise problem("MLflow is not installed", do="install it: pip install 'llm-lab[track]'")
    db = mlflow_local.database(state)
    try:
        mlflow_local.prepare(db)
    except mlflow_local.Unready as e:
        raise problem("the tracking store cannot be used", why=str(e)) from e
    log = db.parent / "server.log"
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command(db, db.parent / "artifacts", host, port),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(),
            start_new_session=True,
        )
    found: dict[str, Any] = {"process": who(process.pid), "url": f"http://{host}:{port}", "log": str(log)}
    put(db.parent / "server.json", json.dumps(found))
    end = time.monotonic() + seconds
    while not answers(found["url"]):
        if process.poll() is not None or time.monotonic() > end:
            stop(state)
            last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise problem("MLflow's server did not come up", why=last[:300], do=f"see {log}, or take another --port")
        time.sleep(0.1)
    return found


def running(state: Path) -> dict[str, Any] | None:
    """The server this lab started, if it lives. Reads."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((mlflow_local.database(state).parent / "server.json").read_text())
        if alive(found["process"]):
            return dict(found)
    return None


def stop(state: Path) -> bool:
    """The server and all its processes are gone; whether there was one."""
    found = running(state)
    if found is None:
        return False
    group = int(found["process"]["pid"])
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.killpg(group, number)
        end = time.monotonic() + 5
        while alive(found["process"]) and time.monotonic() < end:
            with contextlib.suppress(ChildProcessError, OSError):
                os.waitpid(group, os.WNOHANG)
            time.sleep(0.05)
    (mlflow_local.database(state).parent / "server.json").unlink(missing_ok=True)
    return True


def answers(url: str) -> bool:
    """Whether a server is healthy. Reads."""
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # nosec B310 # a server of ours
        return bool(answer.status == 200)
    return False
