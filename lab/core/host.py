"""Host: the machine a lab runs on, as far as plans and forecasts need to know it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

GIB = 2**30


class Host(BaseModel):
    """One machine, declared in `conf/host/NAME.yaml` or read from the machine itself (`host: auto`).

    Bytes are bytes, bandwidth is GB/s (10^9), rates are units per second. None means "not known".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "auto"
    platform: str = "linux-64"
    """conda's name of the platform: `linux-64`, `linux-aarch64`, `osx-arm64`."""
    chip: str = ""
    """`M3 Ultra`, or the CPU's name."""
    cores: int | None = None
    """CPU cores."""
    gpu_cores: int | None = None
    memory: int | None = None
    """Bytes of (unified) memory."""
    wired_limit: int | None = None
    """Bytes the accelerator may wire; None where the system's default stands."""
    bandwidth: float | None = None
    """Memory bandwidth, GB/s."""
    tflops: float | None = None
    """Dense half-precision TFLOP/s of the accelerator, else of the CPU."""
    gpu: str = ""
    """`metal`, `cuda` or empty."""
    gpu_memory: int | None = None
    """Bytes of a discrete accelerator's own memory."""
    gpu_bandwidth: float | None = None
    """GB/s of a discrete accelerator's own memory."""
    network: float | None = None
    """Download rate, bytes/s."""
    disk_rate: float | None = None
    """Sequential disk rate, bytes/s."""
    os: str = ""
    """`macOS 26.1`, `Debian 12`."""
    support: str = "works, not tuned"
    """How far this host is supported: `reference`, `tested`, or `works, not tuned`."""
    source: str = ""
    """Where these figures were published, or how they were read."""
