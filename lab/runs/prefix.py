"""Prefix: the folder of packages that a run begins in stays its own to its end, whatever its env becomes meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os


class Prefix:
    """What an env's link led to when this was made, with a shared lock on its lease: it is not removed before.

    The lock is the kernel's, and a program that is handed `held` keeps it too.
    """

    def __init__(self, link: str) -> None:
        self.link, self.real = link, os.path.realpath(link) if link else ""
        self.held: tuple[int, ...] = ()
        if self.real != link:
            with contextlib.suppress(OSError):
                lease = os.open(f"{self.real}/.lab/lease", os.O_RDONLY)
                self.held = (lease,)
                fcntl.flock(lease, fcntl.LOCK_SH)

    def pinned(self, word: str) -> str:
        """The word with the link replaced by what it led to. Pure."""
        if self.real == self.link:
            return word
        return self.real if word == self.link else word.replace(f"{self.link}/", f"{self.real}/")
