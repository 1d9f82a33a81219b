"""Own: a run that a plain script or notebook begins itself, outside any `lab` command."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_leases: list[Any] = []


def begin(project: str, name: str, params: dict[str, Any]) -> Path:
    """A new run's folder: under the lab whose folder we are in, `LAB_STATE`, else `./lab-runs`."""
    import socket

    title = name or project or Path(sys.argv[0] or "notebook").stem or "run"
    run = f"{title}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}".replace("/", "_")
    folder = _runs() / run
    folder.mkdir(parents=True)
    write(folder / "params.json", params)
    write(folder / "config.json", params)
    spec = {
        "id": run,
        "name": title,
        "project": project or title,
        "argv": list(sys.argv),
        "cwd": os.getcwd(),
        "params": params,
        "seed": 42,
        "own": True,
        "started": time.time(),
    }
    write(folder / "spec.json", spec)
    write(folder / "inputs.json", {"git": git(), "host": socket.gethostname(), "python": sys.version.split()[0]})
    lease = open(folder / "lease", "w")  # noqa: SIM115 - held until this program ends
    fcntl.flock(lease, fcntl.LOCK_EX)
    _leases.append(lease)
    write(folder / "process.json", {"started": time.time(), "own": True})
    return folder


def end(folder: Path, state: str, reason: str) -> None:
    """How an own run ended is in place."""
    began = _read(folder / "spec.json").get("started", time.time())
    last: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            last.update(json.loads(line)[2])
    write(
        folder / "result.json",
        {
            "state": state,
            "reason": reason,
            "started": began,
            "ended": time.time(),
            "seconds": time.time() - began,
            "metrics": last,
        },
    )
    while _leases:
        _leases.pop().close()


def describe(experiment: str) -> dict[str, str]:
    """Date, user, host, Python, platform, torch, accelerator and experiment: what every run should say of itself."""
    import platform
    import socket

    torch = sys.modules.get("torch")
    found = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "user": _user(),
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "torch": str(getattr(torch, "__version__", "none")),
        "accelerator": _accelerator(torch),
    }
    if experiment:
        found["experiment"] = experiment
    return found


def git() -> dict[str, Any]:
    """Commit, branch, remote and dirt of the folder we are in; `{"commit": "none"}` where git knows nothing of it."""

    import subprocess

    def ask(*args: str) -> str:
        try:
            done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return {"commit": "none"}
    return {
        "commit": commit,
        "branch": ask("rev-parse", "--abbrev-ref", "HEAD"),
        "remote": ask("config", "--get", "remote.origin.url"),
        "dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
    }


def write(path: Path, value: Any) -> None:
    """A JSON file, put in place by rename."""
    temporary = path.with_name(f".{path.name}.{os.urandom(3).hex()}.lab-tmp")
    temporary.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _runs() -> Path:
    if os.environ.get("LAB_STATE"):
        return Path(os.environ["LAB_STATE"]) / "runs"
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "conf" / "lab.yaml").is_file():
            return folder / "state" / "runs"
    return here / "lab-runs"


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _accelerator(torch: Any) -> str:
    if torch is not None:
        with contextlib.suppress(Exception):
            if torch.cuda.is_available():
                return f"cuda {torch.cuda.get_device_name(0)}"
            if torch.backends.mps.is_available():
                return "mps"
    import platform

    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "metal"
    return "cpu"


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
