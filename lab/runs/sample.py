"""Sample: what a run's processes, the machine and its cards use, by psutil and NVML; and its memory limit.

Names are those of MLflow's own system metrics where it has one, so that its page shows them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.runs import cards


class Sampler:
    """Reads the figures of one process tree, and of its cards, or all; the first reading of a rate is left out."""

    def __init__(self, pid: int, own: tuple[str, ...] = ()) -> None:
        import psutil

        self._psutil = psutil
        self._pid = pid
        self._cpu = 0.0
        self._at = 0.0
        self._net: Any = None
        self._own = own

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
        for card in cards.read():
            if not self._own or card.index in self._own:
                found.update(card.figures())
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
