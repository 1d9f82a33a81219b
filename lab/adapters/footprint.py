"""Footprint: the memory that a process and its children take, and the end of those that outgrow what they may."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.adapters import machine
from lab.core.units import size

SLACK, GROWTH = 64 << 20, 1.05
"""A job may exceed its promise by 5 % and 64 MiB before it is stopped."""
LEFT = 0.03
"""Share of the memory below which a job that outgrew what was merely expected of it is stopped."""
GRACE = 5.0
"""Seconds between asking a job to stop and killing it."""


def footprint(pid: int, without: Collection[int] = ()) -> int:
    """Bytes that a process and its children take now, but for those `without`; 0 where it is gone. Reads.

    Memory that forked processes share counts once where the system tells it (PSS), else each time.
    """
    import psutil

    try:
        root = psutil.Process(pid)
        below = {p.pid: p for p in root.children(recursive=True)} if pid not in without else {}
        parents = {n: p.ppid() for n, p in below.items()}
    except psutil.Error:
        return 0
    total = 0
    for process in (root, *(p for n, p in below.items() if not _among(n, parents, without))):
        try:
            total += _own(process)
        except psutil.Error:
            continue
    return total


def _among(pid: int, parents: Mapping[int, int], others: Collection[int]) -> bool:
    """Whether it or one above it is of `others`. Pure."""
    while pid in parents:
        if pid in others:
            return True
        pid = parents[pid]
    return False


def _own(process: Any) -> int:
    pss = getattr(process, "memory_full_info", None)
    if pss is not None and os.path.exists(f"/proc/{process.pid}/smaps_rollup"):
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss_Anon:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
    return int(process.memory_info().rss)


class Watched:
    """What a watch saw: the highest footprint, and whether the job was stopped."""

    def __init__(self) -> None:
        self.peak = 0
        self.stopped = ""
        """Why it was stopped; empty where it was not."""


@contextmanager
def watch(
    pid: int, need: int, *, every: float = 0.1, grace: float = GRACE, scarce: Callable[[], bool] = lambda: True
) -> Iterator[Watched]:
    """While the block runs, a process tree that outgrows `need` is stopped: asked first, killed after `grace`.

    Where `need` was only forecast, `scarce` says whether it must be: as long as there is room it may go on.
    """
    seen, done = Watched(), threading.Event()

    def look() -> None:
        limit = need * GROWTH + SLACK
        while not done.wait(every):
            uses = footprint(pid)
            seen.peak = max(seen.peak, uses)
            if uses > limit and scarce():
                seen.stopped = f"it took {size(uses)} and was promised {size(need)}"
                _stop(pid, grace)
                return

    thread = threading.Thread(target=look, name=f"watch-{pid}", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def scarce() -> bool:
    """Whether so little memory is left on this host that it would soon swap. Reads."""
    return machine.available() < LEFT * machine.total()


def drowning(used: int, expects: int, total: int) -> str:
    """Why a run whose need was not declared must end: it outgrew what it was let in for, and memory runs out. Reads.

    Bytes that it uses, was let in for, and that all runs may hold together. Empty where it may go on.
    """
    if used <= GROWTH * expects + SLACK:
        return ""
    left = machine.available()
    if left > LEFT * total:
        return ""
    return f"it took {used / 1e6:.0f} MB where {expects / 1e6:.0f} MB were expected, and {left / 1e6:.0f} MB are left"


def _stop(pid: int, grace: float) -> None:
    import psutil

    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for process in family:
        _quietly(process.terminate)
    # Not psutil's wait: it would reap the child, and its parent would never learn how it ended.
    deadline = time.monotonic() + grace
    while (alive := [p for p in family if _lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in alive:
        _quietly(process.kill)


def _lives(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _quietly(act: Callable[[], object]) -> None:
    import psutil

    try:
        act()
    except psutil.Error:
        return
