"""Processes: a tree of ours ended completely, whatever sessions its members made for themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence


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


def _arguments(process: object) -> Sequence[str]:
    import psutil

    try:
        return process.cmdline()  # type: ignore[attr-defined,no-any-return]
    except psutil.Error:
        return ()


def _below(process: object) -> Sequence[object]:
    import psutil

    try:
        return process.children(recursive=True)  # type: ignore[attr-defined,no-any-return]
    except psutil.Error:
        return ()


def _alive(process: object) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE  # type: ignore[attr-defined,no-any-return]
    except psutil.Error:
        return False


def _wait(processes: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(_alive(p) for p in list(processes)):  # type: ignore[call-overload]
        time.sleep(0.05)
