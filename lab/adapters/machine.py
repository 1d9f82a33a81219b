"""This machine, read: memory, cores, platform, chip, wired limit, bandwidth, free disk."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lab.core.host import Engine, Host
from lab.core.problem import did_you_mean, problem
from lab.forecast import chips
from lab.runs import cards

_BUILTIN = Path(__file__).resolve().parent.parent / "declare" / "builtin" / "host"


@cache
def read(state: Path | None = None) -> Host:
    """The machine that Lab runs on; with `state`, bandwidth and rates as `lab calibrate` measured them. Reads.

    What cannot be read is None. Read once per process: memory and chip do not change under it.
    """
    found = _mac() if sys.platform == "darwin" else _linux()
    found |= {"name": "auto", "cores": os.cpu_count(), "source": "read from the machine"}
    if state is not None:
        found |= _measured(state)
    return Host.model_validate({k: v for k, v in found.items() if v is not None})


def declared(conf: Path, name: str, state: Path | None = None) -> Host:
    """The host of `conf/host/NAME.yaml`, or shipped with Lab; with what was measured, if it is this one. Reads."""
    import yaml
    from pydantic import ValidationError

    if name == "auto":
        return read(state)
    known = files(conf)
    if name not in known:
        raise problem(
            f"there is no host {name}{did_you_mean(name, known)}",
            why=f"conf/host/{name}.yaml is not there, and Lab ships none of that name",
            do=f"one of {', '.join(sorted(known))}",
        )
    try:
        block = yaml.safe_load(known[name].read_text(encoding="utf-8")) or {}
        return Host.model_validate({"name": name, **block}).measured(read(state))
    except (yaml.YAMLError, ValidationError, TypeError) as e:
        raise problem(f"conf/host/{name}.yaml is no host", why=str(e).splitlines()[0], file=str(known[name])) from e


def files(conf: Path) -> dict[str, Path]:
    """Name → file of every host: those shipped with Lab, and those of `conf/host/`, which win. Reads."""
    return {p.stem: p for folder in (_BUILTIN, conf / "host") if folder.is_dir() for p in sorted(folder.glob("*.yaml"))}


def available() -> int:
    """Bytes of memory that a new process may take now without the machine swapping. Reads."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _cgroup("memory.max")
    if limit is not None:
        used = _cgroup("memory.current") or 0
        free = min(free, max(0, limit - used))
    return free


def total() -> int:
    """Bytes of memory there are: the machine's, or its container's where that is less. Reads."""
    import psutil

    whole, limit = int(psutil.virtual_memory().total), _cgroup("memory.max")
    return whole if limit is None else min(whole, limit)


def load() -> float:
    """The last minute's load average per core. Reads."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def chip_of(brand: str) -> str:
    """`Apple M3 Ultra` → `M3 Ultra`. Pure."""
    return brand.removeprefix("Apple ").strip()


def _mac() -> dict[str, Any]:
    chip = chip_of(_sysctl("machdep.cpu.brand_string"))
    cores = _gpu_cores()
    wired = int(_sysctl("iogpu.wired_limit_mb") or 0) * 2**20
    arm = platform.machine() == "arm64"
    return {
        "platform": "osx-arm64" if arm else "osx-64",
        "chip": chip,
        "gpu": "metal" if arm else "",
        "gpu_cores": cores or chips.GPU_CORES.get(chip),
        "memory": int(_sysctl("hw.memsize") or 0) or None,
        "wired_limit": wired or None,
        "bandwidth": chips.bandwidth(chip, cores),
        "os": f"macOS {platform.mac_ver()[0]}",
    }


def _sysctl(name: str) -> str:
    return _run("sysctl", "-n", name)


def _gpu_cores() -> int | None:
    text = _run("ioreg", "-rd1", "-c", "AGXAccelerator", "-l")
    for line in text.splitlines():
        if '"gpu-core-count"' in line:
            number = line.rpartition("=")[2].strip()
            return int(number) if number.isdigit() else None
    return None


def _linux() -> dict[str, Any]:
    machine = platform.machine()
    found: dict[str, Any] = {
        "platform": "linux-aarch64" if machine in ("aarch64", "arm64") else "linux-64",
        "chip": _cpu(),
        "memory": _memory(),
        "os": _release(),
    }
    return found | _nvidia()


def _memory() -> int | None:
    total = None
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limit = _cgroup("memory.max")
    return min(total, limit) if total and limit else total


def _cgroup(name: str) -> int | None:
    text = _text(f"/sys/fs/cgroup/{name}").strip()
    return int(text) if text.isdigit() else None


def _cpu() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _release() -> str:
    fields = dict(line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line)
    name = fields.get("PRETTY_NAME") or fields.get("NAME") or "Linux"
    return name.strip('"')


def _nvidia() -> dict[str, Any]:
    """Facts of the first NVIDIA GPU."""
    known = cards.read()
    if not known:
        return {}
    name = known[0].name
    bandwidth = {"H200": 4800, "H100": 3350, "A100": 2039, "5090": 1792, "4090": 1008, "3090": 936, "GB10": 273}
    tflops = {"H200": 989, "H100": 989, "A100": 312, "5090": 209, "4090": 165, "3090": 71, "GB10": 125}
    key = next((k for k in bandwidth if k in name), "")
    return {
        "gpu": "cuda",
        "chip": name,
        "gpu_memory": known[0].memory,
        "gpu_bandwidth": bandwidth.get(key),
        "tflops": tflops.get(key),
    }


def _measured(state: Path) -> dict[str, Any]:
    try:
        found = json.loads((state / "calibration.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    names = ("bandwidth", "tflops", "network", "disk_rate", "quantize")
    rates = {n: found[n] for n in names if isinstance(found.get(n), (int, float))}
    return {**rates, "engines": dict(_engines(found.get("engines")))}


def _engines(found: Any) -> Iterator[tuple[str, Engine]]:
    from pydantic import ValidationError

    from lab.adapters.calibrate import outdated, versions

    if not isinstance(found, dict):
        return
    known = versions()
    for name, block in found.items():
        with suppress(ValidationError):
            one = Engine.model_validate(block)
            yield str(name), one.model_copy(update={"stale": outdated(str(name), one.version, known)})


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
