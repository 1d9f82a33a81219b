"""Calibration: what this machine really does — memory, hash and disk rates here, engines each in a child process."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.core.problem import Problems, problem

MIB = 1 << 20
FORMAT = 1


def bandwidth(threads: int | None = None, mib: int = 64, rounds: int = 4) -> float:
    """GB/s of copying memory with all cores, read and written bytes counted, best of `rounds`. Measures."""
    count = threads or os.cpu_count() or 1
    size = mib * MIB
    copy = ctypes.CDLL(None).memcpy  # ctypes lets other threads run meanwhile
    copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    pairs = [(ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)) for _ in range(count)]
    best = 0.0
    for _ in range(rounds):
        at = threading.Barrier(count + 1)

        def work(i: int, at: threading.Barrier = at) -> None:
            at.wait()
            copy(pairs[i][0], pairs[i][1], size)
            at.wait()

        for i in range(count):
            threading.Thread(target=work, args=(i,), daemon=True).start()
        at.wait()
        begun = time.perf_counter()
        at.wait()
        best = max(best, 2 * size * count / (time.perf_counter() - begun))
    return best / 1e9


def hashing(mib: int = 64) -> float:
    """Bytes/s of SHA-256 on one core. Measures."""
    data = bytes(mib * MIB)
    begun = time.perf_counter()
    hashlib.sha256(data).digest()
    return len(data) / (time.perf_counter() - begun)


def disk(folder: Path, mib: int = 256) -> float:
    """Bytes/s of writing to the volume of `folder` until it is durable. Measures; the file is removed."""
    path = folder / f".calibrate-{os.getpid()}"
    chunk = os.urandom(4 * MIB)
    begun = time.perf_counter()
    try:
        with path.open("wb") as f:
            for _ in range(mib // 4):
                f.write(chunk)
            f.flush()
            os.fsync(f.fileno())
        return mib * MIB / (time.perf_counter() - begun)
    except OSError as e:
        raise problem("the disk's rate cannot be measured", why=f"{folder}: {e.strerror}", do="free some space") from e
    finally:
        path.unlink(missing_ok=True)


def line(url: str, offline: bool, most: int = 64 * MIB, seconds: float = 4.0) -> float | None:
    """Bytes/s from a server: a few seconds of one of its files, after the first block; None out of reach. Measures."""
    from lab.adapters import http

    try:
        with http.open_(url, {"Range": f"bytes=0-{most - 1}"}, offline=offline, timeout=10) as answer:
            answer.read(MIB // 4)
            begun, got = time.perf_counter(), 0
            while (taken := time.perf_counter() - begun) < seconds and (block := answer.read(MIB // 4)):
                got += len(block)
    except (http.Transient, http.Refused, Problems, *http.BROKEN):
        return None
    return got / taken if got >= MIB and taken else None


def versions() -> dict[str, str]:
    """The installed engines and their versions, without importing them. Reads."""
    from importlib import metadata

    found = {}
    for engine, package in (("llama.cpp", "llama-cpp-python"), ("mlx", "mlx-lm")):
        try:
            found[engine] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def engine(name: str, folder: Path, band: float, limit: float = 240) -> dict[str, Any]:
    """What an engine reaches on a small meaningless model: `eta` by type, `alpha`, `flops`. Measures, in a child."""
    command = [sys.executable, "-m", "lab.adapters.calibrate_engines", name, str(folder), repr(band)]
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env, check=False)
    except subprocess.TimeoutExpired as e:
        raise problem(f"{name} was not measured in {limit:.0f} s", do="try again on an idle machine") from e
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode or not last.startswith("{"):
        why = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise problem(f"{name} could not be measured", why=why, do="run a small model with it to see what is wrong")
    found: dict[str, Any] = json.loads(last)
    return found


def measure(
    state: Path, engines: list[str], say: Callable[[str], None] = lambda _: None, network: float | None = None
) -> dict[str, Any]:
    """All of it, as stored in `state/calibration.json`. Measures; takes about a minute."""
    state.mkdir(parents=True, exist_ok=True)
    known = versions()
    say("memory")
    band = bandwidth()
    out: dict[str, Any] = {"format": FORMAT, "at": time.time(), "bandwidth": round(band, 2), "engines": {}}
    say("hash and disk")
    out["hash_rate"], out["disk_rate"] = round(hashing()), round(disk(state))
    if network:
        out["network"] = network
    scratch = state / "calibrate"
    scratch.mkdir(exist_ok=True)
    try:
        for name in engines:
            if name not in known:
                continue
            say(name)
            try:
                found = engine(name, scratch, band)
                if rate := found.pop("quantize", None):
                    out["quantize"] = round(rate)
                out["engines"][name] = {**found, "version": known[name]}
            except Problems as e:
                out.setdefault("failed", {})[name] = str(e.problems[0])
    finally:
        for path in scratch.iterdir():
            path.unlink()
        scratch.rmdir()
    return out


def stale(found: dict[str, Any]) -> list[str]:
    """Why a stored calibration no longer holds, in a line each; empty where it does. Reads."""
    known, measured = versions(), found.get("engines", {})
    out = [why for name, block in measured.items() if (why := outdated(name, str(block.get("version")), known))]
    return out + [f"{name} {v} was installed since" for name, v in known.items() if name not in measured]


def outdated(name: str, version: str, known: Mapping[str, str]) -> str:
    """Why an engine measured in `version` is another one now; empty where it is not. Pure."""
    now = known.get(name)
    if now is None:
        return f"{name} {version} was measured and is no longer installed"
    return "" if now == version else f"{name} was {version} when it was measured and is {now} now"
