"""How long it takes to fetch and to quantize: bytes over the network's and the disk's rate, weights over the CPU's."""

from __future__ import annotations

from lab.core.forecast import Estimate
from lab.core.host import Host
from lab.forecast import gguf_types
from lab.forecast.use import MLX, Use

RATES: dict[str, float] = {
    "F32": 400e6, "F16": 400e6, "BF16": 200e6, "Q8_0": 130e6, "Q4_0": 130e6, "Q4_1": 110e6, "Q5_0": 100e6,
    "Q5_1": 90e6, "Q6_K": 31e6, "Q5_K": 25e6, "Q4_K": 19e6, "Q3_K": 39e6, "Q2_K": 33e6, "IQ4_NL": 12e6, "IQ4_XS": 12e6,
    "IQ3_S": 4.5e6, "IQ3_XXS": 4e6, "IQ2_S": 2e6, "IQ2_XS": 2e6, "IQ2_XXS": 2e6, "IQ1_S": 2e6, "IQ1_M": 2e6,
    "MXFP4": 128e6, "TQ1_0": 100e6, "TQ2_0": 100e6, "Q1_0": 100e6, "Q2_0": 100e6,
}  # fmt: skip
"""Weights per second and core by which llama.cpp quantizes (measured in CPU seconds on x86 without AVX-512)."""
DISK = 1e9
"""Bytes/s of a disk whose rate is not declared or calibrated, with a wide interval."""


def fetching(size: float, host: Host) -> Estimate | None:
    """Seconds to fetch `size` bytes; None where the network's rate is not declared or measured. Pure."""
    if not host.network or size <= 0:
        return None
    seconds = size / host.network
    return Estimate(seconds, seconds * 0.8, seconds * 2, "network rate")


def quantizing(parameters: float, use: Use, host: Host, read: float, written: float) -> Estimate | None:
    """Seconds to quantize: arithmetic on all cores, and reading the source and writing the result. Pure.

    None for MLX on a host whose cores' rate for it is not known; on Metal the disk is what takes the time.
    """
    moving = (read + written) / (host.disk_rate or DISK)
    if use.format == MLX:
        if host.gpu != "metal":
            return None
        return Estimate(moving, moving * 0.5, moving * 4, "disk rate")
    kind = gguf_types.canonical(use.type)
    if kind is None or not (host.cores or host.quantize):
        return None
    rate = RATES[gguf_types.FILE_TYPES[kind].default]
    if host.quantize:
        working = parameters / (host.quantize * rate / RATES["Q4_K"])
        return Estimate(moving + working, moving * 0.3 + working * 0.6, moving * 4 + working * 1.5, "calibration")
    working = parameters / (rate * (host.cores or 1))
    return Estimate(moving + working, moving * 0.3 + working * 0.4, moving * 4 + working * 2, "rule")
