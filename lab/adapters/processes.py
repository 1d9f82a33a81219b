"""Processes: a tree of ours ended completely, whatever sessions its members made for themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def end_tree(ours: Callable[[Sequence[str]], bool], grace: float = 5.0) -> int:
    """Ends every child whose command line is `ours`, and all below it: asked first, killed after `grace` seconds.

    Says how many had to be killed. The tree is taken before anything is signalled (a worker that loses its parent is
    found by nobody), and is polled, never waited for: reaping belongs to whoever started the child.
    """
    import psutil

    roots = [c for c in psutil.Process().children() if ours(_arguments(c))]
    tree = {p.pid: p for root in roots for p in [root, *_below(root)]}
    for root in roots:
        with contextlib.suppress(psutil.Error):
            root.terminate()
    _wait(tree.values(), grace)
    left = [p for p in tree.values() if _alive(p)]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _wait(left, 2.0)
    return len(left)


def _arguments(process: Any) -> Sequence[str]:
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return ()


def _below(process: Any) -> Sequence[Any]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return ()


def _alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _wait(processes: Iterable[Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(_alive(p) for p in list(processes)):
        time.sleep(0.05)
