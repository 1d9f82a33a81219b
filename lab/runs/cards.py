"""Cards: the accelerators of this host and how busy they are, by NVIDIA's library (NVML) or Apple's driver. Reads.

The one of a Mac is a card like another, whose memory is all of the machine's.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

LIBRARY = "libnvidia-ml.so.1"
_CELSIUS, _TEXT = 0, 96


@dataclass(frozen=True, slots=True)
class Card:
    """One card now; what it does not tell is None."""

    index: str
    """Its number on the bus, as `CUDA_VISIBLE_DEVICES` takes it."""
    id: str
    name: str
    memory: int
    """Bytes, all and used."""
    used: int
    busy: float | None = None
    """Percent of the last moment in which it computed."""
    heat: float | None = None
    """Degrees Celsius."""
    watts: float | None = None

    def figures(self) -> dict[str, float]:
        """By the names under which MLflow shows them. Pure."""
        known = {
            "utilization_percentage": self.busy, "memory_usage_megabytes": self.used / 1e6,
            "power_usage_watts": self.watts, "temperature_celsius": self.heat,
        }  # fmt: skip
        return {f"system/gpu_{self.index}_{n}": float(v) for n, v in known.items() if v is not None}


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Rates(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@cache
def _library() -> ctypes.CDLL | None:
    """The library, ready; None where there is none or its driver is not there."""
    try:
        found = ctypes.CDLL(LIBRARY)
        return found if found.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


def read() -> list[Card]:
    """Every card of this host, in the order of the bus."""
    if sys.platform == "darwin":
        return metal(
            _run("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"), _run("sysctl", "-n", "hw.memsize")
        )
    nvml = _library()
    count = ctypes.c_uint()
    if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found = []
    for n in range(count.value):
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(n), ctypes.byref(handle)) == 0:
            found.append(_card(nvml, n, handle))
    return found


def _card(nvml: ctypes.CDLL, number: int, handle: ctypes.c_void_p) -> Card:
    memory, rates, heat, power = _Memory(), _Rates(), ctypes.c_uint(), ctypes.c_uint()
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))

    def told(call: Callable[..., int], *args: object) -> bool:
        return call(handle, *args) == 0

    return Card(
        str(number),
        _text(nvml.nvmlDeviceGetUUID, handle),
        _text(nvml.nvmlDeviceGetName, handle),
        memory.total,
        memory.used,
        rates.gpu if told(nvml.nvmlDeviceGetUtilizationRates, ctypes.byref(rates)) else None,
        heat.value if told(nvml.nvmlDeviceGetTemperature, ctypes.c_int(_CELSIUS), ctypes.byref(heat)) else None,
        power.value / 1000 if told(nvml.nvmlDeviceGetPowerUsage, ctypes.byref(power)) else None,
    )


def _text(call: Callable[..., int], handle: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(_TEXT)
    return buffer.value.decode(errors="replace") if call(handle, buffer, ctypes.c_uint(_TEXT)) == 0 else ""


def metal(said: str, memory: str) -> list[Card]:
    """The accelerator of a Mac by what its driver says of itself. Pure."""
    figures = {k: int(v) for k, v in re.findall(r'"([^"]+)"=(\d+)', said)}
    model = re.search(r'"model" = "([^"]+)"', said)
    if not model or not memory.isdigit():
        return []
    used, busy = figures.get("In use system memory", 0), figures.get("Device Utilization %")
    return [Card("0", "", model[1], int(memory), used, busy)]


def _run(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def pool() -> tuple[str, ...]:
    """The cards that jobs may be given: all, or those that `CUDA_VISIBLE_DEVICES` leaves to this process."""
    found = read()
    if (only := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return tuple(c.index for c in found)
    words = [w.strip() for w in only.split(",") if w.strip()]
    return tuple(c.index for c in found if any(w == c.index or (w[0] == "G" and c.id.startswith(w)) for w in words))


def visible(cards: tuple[str, ...]) -> dict[str, str]:
    """The environment in which a program sees these cards and no other. Pure."""
    if not cards or sys.platform == "darwin":
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(cards)}
