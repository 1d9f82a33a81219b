"""Apple's chips: memory bandwidth, GPU cores and what the system lets the GPU wire. Published figures.

Bandwidth in GB/s and cores from Apple's specification pages; the wired share from `recommendedMaxWorkingSetSize` as
printed by engines on those machines.
"""

from __future__ import annotations

BANDWIDTH: dict[str, float] = {
    "M1": 68, "M1 Pro": 200, "M1 Max": 400, "M1 Ultra": 800,
    "M2": 100, "M2 Pro": 200, "M2 Max": 400, "M2 Ultra": 800,
    "M3": 100, "M3 Pro": 150, "M3 Max": 400, "M3 Ultra": 819,
    "M4": 120, "M4 Pro": 273, "M4 Max": 546,
    "M5": 153, "M5 Pro": 307, "M5 Max": 614,
}  # fmt: skip
"""Of the full chip."""
GPU_CORES: dict[str, int] = {
    "M1": 8, "M1 Pro": 16, "M1 Max": 32, "M1 Ultra": 64, "M2": 10, "M2 Pro": 19, "M2 Max": 38, "M2 Ultra": 76,
    "M3": 10, "M3 Pro": 18, "M3 Max": 40, "M3 Ultra": 80, "M4": 10, "M4 Pro": 20, "M4 Max": 40,
    "M5": 10, "M5 Pro": 20, "M5 Max": 40,
}  # fmt: skip
"""Of the full chip."""
BINNED: dict[tuple[str, int], float] = {
    ("M3 Max", 30): 300, ("M4 Max", 32): 410, ("M5 Max", 32): 460,
}  # fmt: skip
"""Bandwidth of chips sold with fewer GPU cores, where it differs."""


def bandwidth(chip: str, gpu_cores: int | None = None) -> float | None:
    """GB/s of a chip, `M3 Ultra`, with its GPU cores where known; None where the chip is not. Pure."""
    if gpu_cores is not None and (chip, gpu_cores) in BINNED:
        return BINNED[(chip, gpu_cores)]
    return BANDWIDTH.get(chip)


def working_set(memory: int, *, macos: int = 0) -> tuple[float, float, float]:
    """Bytes the GPU may use where no limit is set: the likely value and its bounds. Pure.

    Two thirds of small memories, three quarters of larger ones (from 64 GiB), 0.84 on macOS 26 for 128 GiB and more.
    """
    gib = memory / 2**30
    if gib <= 36:
        return memory * 2 / 3, memory * 0.64, memory * 0.68
    share = 0.84 if macos >= 26 and gib >= 128 else 0.75
    return memory * share, memory * 0.72, memory * 0.94
