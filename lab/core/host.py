"""Host: the machine a lab runs on, as far as plans and forecasts need to know it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from lab.core.block import Block
from lab.core.units import parse_size

GIB = 2**30
_SIZE = re.compile(r"\d+(?:\.\d+)?\s*[kMGT]i?B", re.ASCII)


def _bytes(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) and _SIZE.fullmatch(value.strip()) else value


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
"""A number of bytes, or `460GB`, `512GiB`."""
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]

SUPPORT: Mapping[str, str] = {
    "reference": "the machine Lab is made for: defaults, advice and playbooks are chosen for it",
    "tested": "the machine every test runs on, in CI as well",
    "works, not tuned": "its figures are known to plans and forecasts; nothing is tuned for it",
}
"""Each level of support, and what it means."""


class Engine(Block):
    """How fast one engine was measured to run on a machine; by type where types differ."""

    model_config = ConfigDict(extra="ignore")

    version: str = ""
    eta: Rate
    """Share of the memory's bandwidth at which weights are read."""
    alpha: float
    """Seconds per layer and token beside reading."""
    flops: Rate
    """FLOP/s reached in prompts."""
    eta_by_type: Mapping[str, float] = {}
    flops_by_type: Mapping[str, float] = {}
    stale: str = ""
    """Why it no longer holds: the engine was upgraded since."""


class Host(Block):
    """One machine, declared in `conf/host/NAME.yaml` or read from the machine itself (`host: auto`).

    Bytes are bytes, bandwidth is GB/s (10^9), rates are units per second. None means "not known".
    """

    name: str = "auto"
    platform: str = "linux-64"
    """conda's name of the platform: `linux-64`, `linux-aarch64`, `osx-arm64`."""
    chip: str = ""
    """`M3 Ultra`, or the CPU's name."""
    cores: Count | None = None
    """CPU cores."""
    gpu_cores: Count | None = None
    memory: Bytes | None = None
    """Bytes of (unified) memory."""
    wired_limit: Bytes | None = None
    """Bytes the accelerator may wire; None where the system's default stands."""
    bandwidth: Rate | None = None
    """Memory bandwidth, GB/s."""
    tflops: Rate | None = None
    """Dense half-precision TFLOP/s of the accelerator, else of the CPU."""
    gpu: str = ""
    """`metal`, `cuda` or empty."""
    gpu_memory: Bytes | None = None
    """Bytes of a discrete accelerator's own memory."""
    gpu_bandwidth: Rate | None = None
    """GB/s of a discrete accelerator's own memory."""
    network: Rate | None = None
    """Download rate, bytes/s."""
    disk: Bytes | None = None
    """Bytes of the volume the store is on: what a plan for this host may take in all."""
    disk_rate: Rate | None = None
    """Sequential disk rate, bytes/s."""
    quantize: Rate | None = None
    """Weights per second that llama.cpp was measured to turn into Q4_K on all cores."""
    engines: Mapping[str, Engine] = {}
    """What `lab calibrate` measured of each engine; `llama.cpp`, `mlx`."""
    os: str = ""
    """`macOS 26.1`, `Debian 12`."""
    support: Literal["reference", "tested", "works, not tuned"] = "works, not tuned"
    """How far this host is supported; `lab hosts` says what the words mean."""
    ssh: str = ""
    """How ssh reaches it (`me@studio`), for `lab plan --host NAME`."""
    folder: str = ""
    """The lab's folder on that host; `~/lab` where it is not said."""
    source: str = ""
    """Where these figures were published, or how they were read."""

    def measured(self, here: Host) -> Host:
        """This host with what was measured `here`, where that is the same machine (chip and memory). Pure."""
        if not here.engines or not self.chip or (self.chip, self.memory) != (here.chip, here.memory):
            return self
        names = ("bandwidth", "tflops", "network", "disk_rate", "quantize")
        rates = {n: v for n in names if (v := getattr(here, n)) is not None}
        return self.model_copy(update={**rates, "engines": here.engines})
