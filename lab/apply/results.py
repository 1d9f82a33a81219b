"""Results: how each change of an apply ended."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.core.problem import Problem


class Outcome(StrEnum):
    """How a change ended."""

    DONE = "done"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Result:
    """The end of one change: its outcome, why, and what a person can do about it."""

    outcome: Outcome
    problems: Sequence[Problem] = ()
    why: str = ""
    seconds: float = 0.0
    said: str = ""


_OS = {
    errno.ENOSPC: ("the disk is full", "free some space, then run `lab apply` again: it continues"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then run `lab apply` again: it continues"),
    errno.EROFS: ("the volume is read-only", "mount it writable, or declare another place"),
    errno.EACCES: ("permission denied", "give the user who applies the right to it, or declare another place"),
    errno.EPERM: ("not permitted", "give the user who applies the right to it, or declare another place"),
    errno.EMFILE: ("too many open files", "raise the limit (`ulimit -n`), then run `lab apply` again"),
    errno.EIO: ("the disk failed to read or write", "check the volume; Lab did not record the change"),
    errno.ENOENT: ("a file or folder is missing", "see the path; is its volume mounted?"),
    errno.ENOTDIR: ("a file stands where a folder must be", "move it away, or declare another path"),
    errno.EISDIR: ("a folder stands where a file must be", "move it away, or declare another path"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "declare a shorter path"),
    errno.ELOOP: ("links lead in a circle", "mend the links, or declare another path"),
    errno.EFBIG: ("a file would grow too large", "raise the limit (`ulimit -f`), or use a file system that allows it"),
    errno.ENOMEM: ("out of memory", "close other programs, or declare less at once"),
    errno.EAGAIN: ("no more processes may be started", "raise the limit (`ulimit -u`), then run `lab apply` again"),
    errno.ENFILE: ("too many open files on this machine", "close other programs, then run `lab apply` again"),
}
_OTHER = ("the system refused", "see to what it says, then run the same command again")


def explained(error: Exception) -> Problem | None:
    """The problem behind an operating system's error; None for a fault of Lab's own. Pure."""
    if isinstance(error, OSError) and error.errno:
        summary, do = _OS.get(error.errno, _OTHER)
        path = error.filename2 or error.filename  # what was to be put somewhere is named by where it was to go
        where = f": {path}" if path else ""
        return Problem(f"{summary}{where}", why=error.strerror or "", do=do)
    if isinstance(error, RecursionError):
        do = "undo what was changed last; `lab doctor` and `lab verify` look for it"
        return Problem("a file is nested too deeply to be read", do=do)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        summary, do = _OS[errno.EAGAIN]
        return Problem(summary, why=str(error), do=do)
    if isinstance(error, MemoryError):
        return Problem("out of memory", do="close other programs, or declare less at once")
    return None
