"""Streams: standard input, output and error as they come: closed, full, left by their reader, not for every letter."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import IO, Any

from lab.core.masking import masked


def steady() -> tuple[Any, Any]:
    """Output and error, to which all can be said; where one was closed, nothing else is opened in its place."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest that is free: this one.
    sys.stdin = sys.stdin or os.fdopen(0)
    out, err = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal's encoding lacks is no reason to stop
    return Steady(out), Steady(err, aside=True)


class Steady:
    """A stream whose reader may leave (`| head`): what is said to nobody is dropped, and the work goes on.

    What is `aside`, said while the work goes on, is dropped also where it cannot be written for another reason.
    No secret's value goes through it, whoever says it: a tool's own words, a traceback.
    """

    def __init__(self, out: IO[str], aside: bool = False) -> None:
        self._out = out
        self._aside = aside
        self.lost = False
        """Whether what was said could not be written."""
        with contextlib.suppress(AttributeError):
            out.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        try:
            return self._out.write(masked(text))
        except OSError as e:
            self._drop(e)
            return len(text)

    def flush(self) -> None:
        try:
            self._out.flush()
        except OSError as e:
            self._drop(e)

    def _drop(self, e: OSError) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
        if not self._aside and e.errno != errno.EPIPE:
            self.lost = True
            raise OSError(e.errno, e.strerror, self._out.name) from e

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)
