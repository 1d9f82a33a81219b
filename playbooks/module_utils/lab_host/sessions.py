# SPDX-License-Identifier: Apache-2.0
"""What is left of a person: processes, stray files, a home."""

from __future__ import annotations

import contextlib
import os
import pwd
import tarfile
import time

PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/private/tmp", "/private/var/tmp", "/var/spool/cron", "/var/mail")


def end(machine, name):
    """No process of the account is left."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return
    for _ in range(100):
        if machine.ask("pgrep", "-u", name)[0] == 1:
            return
        machine.run("pkill", "-KILL", "-u", name, fine=(0, 1), said=f"ended the processes of {name}")
        if machine.check:
            return
        time.sleep(0.05)


def leftovers(machine, name, places=()):
    """Files of the account outside its home are removed from places anyone may write: no later uid inherits them."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return
    tops = [top for top in (*PLACES, *places) if os.path.isdir(top)]
    _status, out, _err = machine.ask("find", *tops, "-depth", "-uid", str(uid), "-print0")
    for each in out.split("\0"):
        # Others make and remove files there all the while: one that is gone is fine.
        with contextlib.suppress(FileNotFoundError):
            if each:
                leftover(machine, each, uid)


def leftover(machine, path, uid):
    """A file of the account is removed; a folder in which others keep something is given to root."""
    if os.lstat(path).st_uid != uid:
        return
    machine.note(f"removed {path}")
    if machine.check:
        return
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
    elif os.listdir(path):
        os.chown(path, 0, 0)
    else:
        os.rmdir(path)


def archive(machine, name, to):
    """The account's home is in a tar file that only root reads; made once, whole or not at all."""
    try:
        home = pwd.getpwnam(name).pw_dir
    except KeyError:
        return
    if not os.path.isdir(home) or os.path.exists(to):
        return
    machine.note(f"archived {home} as {to}")
    if machine.check:
        return
    os.makedirs(os.path.dirname(to), mode=0o700, exist_ok=True)
    fd = os.open(to + ".part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as f:
        with tarfile.open(fileobj=f, mode="w:gz") as tar:
            tar.add(home, arcname=name)
        f.flush()
        os.fsync(f.fileno())
    os.replace(to + ".part", to)


def keep(machine, name):
    """The account's home stays where it is, as root's: nobody who comes later may read it."""
    try:
        is_ = pwd.getpwnam(name)
    except KeyError:
        return
    if not os.path.isdir(is_.pw_dir) or os.stat(is_.pw_dir).st_uid != is_.pw_uid:
        return
    machine.note(f"kept {is_.pw_dir}, as root's")
    if machine.check:
        return
    give(is_.pw_dir, is_.pw_uid, 0, 0)


def give(top, of, uid, gid):
    """What below `top` belongs to `of` belongs to another; links are not followed, and the top comes last."""
    for folder, folders, names in os.walk(top, topdown=False):
        for each in (os.path.join(folder, n) for n in [*folders, *names]):
            if os.lstat(each).st_uid == of:
                os.chown(each, uid, gid, follow_symlinks=False)
    os.chown(top, uid, gid, follow_symlinks=False)
