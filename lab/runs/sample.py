"""Sample: what a run's processes and the machine use, by psutil; and its memory limit.

Names are those of MLflow's own system metrics where it has one, so that its page shows them.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Sampler:
    """Reads the figures of one process tree; the first reading of a rate is left out."""

    def __init__(self, pid: int) -> None:
        import psutil

        self._psutil = psutil
        self._pid = pid
        self._cpu = 0.0
        self._at = 0.0
        self._net: Any = None
        self._nvidia = shutil.which("nvidia-smi")

    def memory(self) -> int:
        """Bytes resident in the tree now."""
        return sum(self._of(p, lambda q: q.memory_info().rss) for p in self._tree())

    def read(self, folder: Path) -> dict[str, float]:
        """All figures now."""
        ps, now = self._psutil, time.monotonic()
        tree = self._tree()
        cpu = sum(self._of(p, lambda q: sum(q.cpu_times()[:2])) for p in tree)
        found = {"system/process_memory_megabytes": self.memory() / 1e6, "system/processes": float(len(tree))}
        if self._at:
            found["system/process_cpu_percentage"] = max(0.0, 100 * (cpu - self._cpu) / max(now - self._at, 1e-3))
        self._cpu = cpu
        with contextlib.suppress(Exception):
            found["system/cpu_utilization_percentage"] = ps.cpu_percent()
            memory = ps.virtual_memory()
            found["system/system_memory_usage_megabytes"] = memory.used / 1e6
            found["system/system_memory_usage_percentage"] = memory.percent
            disk = ps.disk_usage(str(folder))
            found["system/disk_usage_percentage"] = disk.percent
            found["system/disk_available_megabytes"] = disk.free / 1e6
            net = ps.net_io_counters()
            if self._net is not None:
                found["system/network_receive_megabytes"] = (net.bytes_recv - self._net.bytes_recv) / 1e6
                found["system/network_transmit_megabytes"] = (net.bytes_sent - self._net.bytes_sent) / 1e6
            self._net = self._net or net
        if self._nvidia:
            found.update(self._gpus())
        self._at = now
        return found

    def _tree(self) -> list[Any]:
        try:
            root = self._psutil.Process(self._pid)
            return [root, *root.children(recursive=True)]
        except self._psutil.Error:
            return []

    def _of(self, process: Any, ask: Callable[[Any], float]) -> Any:
        try:
            return ask(process)
        except self._psutil.Error:
            return 0

    def _gpus(self) -> dict[str, float]:
        query = "--query-gpu=index,utilization.gpu,memory.used,power.draw"
        try:
            done = subprocess.run(
                [str(self._nvidia), query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return {}
        found: dict[str, float] = {}
        for line in done.stdout.splitlines():
            index, *figures = [c.strip() for c in line.split(",")]
            for name, text in zip(
                ("utilization_percentage", "memory_usage_megabytes", "power_usage_watts"), figures, strict=False
            ):
                with contextlib.suppress(ValueError):
                    found[f"system/gpu_{index}_{name}"] = float(text)
        return found
