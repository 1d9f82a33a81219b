"""Copies that cost nothing where the file system can share bytes, and two folders that change places at once."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import sys
from pathlib import Path

_FICLONE = 0x40049409
_EXCHANGE = 2
_AT_FDCWD = -100


def copy(source: Path, target: Path) -> str:
    """`target` has the bytes of `source`; returns how: `clone` (APFS), `reflink` (btrfs, XFS) or `copy`.

    Hard links are not used: who edits one name in place would change the other, and a blob's read-only mode would be
    laid on a file that is not ours.
    """
    if sys.platform == "darwin":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.clonefile(os.fsencode(source), os.fsencode(target), 0) == 0:
            return "clone"
    with open(source, "rb") as a, open(target, "xb") as b:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fcntl.ioctl(b.fileno(), _FICLONE, a.fileno())
                return "reflink"
        shutil.copyfileobj(a, b, 1 << 22)
    return "copy"


def exchange(a: Path, b: Path) -> None:
    """The two paths have changed places, in one step where the system can (Linux, macOS), else in three renames."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = -1
    if sys.platform == "darwin":
        done = libc.renamex_np(os.fsencode(a), os.fsencode(b), _EXCHANGE)
    elif hasattr(libc, "renameat2"):
        done = libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _EXCHANGE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, 0):
        raise OSError(code, os.strerror(code), str(b))
    aside = b.with_name(f".{b.name}.{secrets.token_hex(4)}.lab-tmp")
    os.rename(b, aside)
    os.rename(a, b)
    os.rename(aside, a)


def reserve(fd: int, size: int) -> None:
    """`size` bytes are set aside for the open file without changing its length; OSError ENOSPC where they are not
    there. Where the file system cannot reserve, nothing happens."""
    if size <= 0:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        keep = libc.fallocate(fd, 1, ctypes.c_longlong(0), ctypes.c_longlong(size))
        if keep != 0 and ctypes.get_errno() == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif sys.platform == "darwin":
        import struct

        # fstore_t: F_ALLOCATEALL, F_PEOFPOSMODE, offset, length, bytes allocated.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, 42, struct.pack("=Iiqqq", 4, 3, 0, size, 0))


def same_volume(file: Path, folder: Path) -> bool:
    """Whether a copy would stay on one volume whose file system shares bytes (APFS, btrfs, XFS with reflinks)."""
    if file.stat().st_dev != folder.stat().st_dev:
        return False
    if sys.platform == "darwin":
        return True
    probe = folder / f".{secrets.token_hex(4)}.lab-tmp"
    try:
        with open(file, "rb") as a, open(probe, "xb") as b:
            fcntl.ioctl(b.fileno(), _FICLONE, a.fileno())
        return True
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
