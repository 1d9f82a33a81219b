# SPDX-License-Identifier: Apache-2.0
"""Files, folders and single lines."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import shutil
import stat

from .machine import Failed


def file(machine, path, state="file", content="", mode="0644", owner="root", group=None, validate=None, tree=False):
    """`path` is a file with exactly this content, a folder, or absent; a file that does not validate is put back."""
    if state == "absent":
        absent(machine, path, tree)
        return
    if state == "directory":
        if not os.path.isdir(path):
            machine.note(f"made {path}")
            if not machine.check:
                os.makedirs(path, int(mode, 8))
    else:
        write(machine, path, content.encode(), mode, validate)
    attributes(machine, path, mode, owner, group)


def folder(machine, path):
    """A folder is there; a new one belongs to whom the folder above it belongs to."""
    if os.path.isdir(path):
        return
    machine.note(f"made {path}")
    if machine.check:
        return
    above = os.path.dirname(path)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    owner = os.stat(above)
    os.makedirs(path, 0o755)
    while path != above:
        os.chown(path, owner.st_uid, owner.st_gid)
        path = os.path.dirname(path)


def absent(machine, path, tree=False):
    """Nothing is at `path`; a folder only goes when it is empty, or with `tree`."""
    swept(machine, path)
    if not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.path.islink(path):
        if tree:
            machine.note(f"removed {path} and all in it")
            if not machine.check:
                shutil.rmtree(path)
        elif not os.listdir(path):
            machine.note(f"removed {path}")
            if not machine.check:
                os.rmdir(path)
        return
    machine.note(f"removed {path}")
    if not machine.check:
        os.unlink(path)


def write(machine, path, data, mode, validate):
    """The content is in place, whole: written beside, then renamed; the old one returns where `validate` refuses."""
    old = None
    swept(machine, path)
    if os.path.isdir(path):
        raise Failed(f"{path} is a directory", "move it away")
    if os.path.exists(path):
        with open(path, "rb") as f:
            old = f.read()
    if old == data:
        return
    machine.note(f"wrote {path}")
    if machine.check:
        return
    place(path, data, mode)
    if validate:
        refused = sshd(machine) if validate == "sshd" else command(machine, validate)
        if refused:
            if old is None:
                os.unlink(path)
            else:
                place(path, old, mode)
            raise Failed(f"{path} was refused: {refused}", "the old one was put back; mend the declaration")


def command(machine, argv):
    """Why a command refuses; empty where it does not."""
    status, out, err = machine.ask(*argv)
    return (err or out).strip() or f"status {status}" if status else ""


def sshd(machine, *more):
    """Why sshd refuses its whole configuration; empty where it does not, or where there is no sshd."""
    if platform.system() == "Linux" and not os.path.isdir("/run/sshd"):
        os.mkdir("/run/sshd", 0o755)  # sshd's unit makes it; `sshd -t` refuses to look at anything without it
    status, _out, err = machine.ask("/usr/sbin/sshd", "-t", *more)
    if status in (0, 127) or "no hostkeys available" in err:
        return ""
    return " ".join(err.split()) or f"status {status}"


def beside(path):
    """Where a file is written before it takes its name: always the same, so that a kill leaves none for good."""
    return os.path.join(os.path.dirname(path), ".lab." + os.path.basename(path))


def swept(machine, path):
    """What a kill left beside a file is gone."""
    if os.path.lexists(beside(path)) and not machine.check:
        os.unlink(beside(path))


def place(path, data, mode):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = beside(path)
    if os.path.lexists(temporary):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            os.fchmod(f.fileno(), int(mode, 8))
            if os.path.exists(path):  # at(1) reads its list through its group: who owns a file stays
                os.fchown(f.fileno(), os.stat(path).st_uid, os.stat(path).st_gid)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def attributes(machine, path, mode, owner, group):
    """Mode and owner are as declared."""
    if not os.path.lexists(path):
        return
    is_ = os.lstat(path)
    if stat.S_IMODE(is_.st_mode) != int(mode, 8):
        machine.note(f"mode of {path} is {mode}")
        if not machine.check:
            os.chmod(path, int(mode, 8))
    try:
        user = pwd.getpwnam(owner)
        uid, gid = user.pw_uid, grp.getgrnam(group).gr_gid if group else user.pw_gid
    except KeyError:
        if machine.check:
            return
        raise Failed(f"{path} cannot be given to {owner}", "declare a user that exists") from None
    if (is_.st_uid, is_.st_gid) != (uid, gid):
        machine.note(f"owner of {path} is {owner}")
        if not machine.check:
            os.chown(path, uid, gid)


def line(machine, path, line, state="present", create=True, mode="0644"):
    """The file has this line once, or not at all. A file that holds nothing else was made for the line, and goes."""
    lines = []
    swept(machine, path)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            lines = f.read().splitlines()
    elif state == "absent" or not create:
        return
    if (line in lines) == (state == "present"):
        return
    kept = [*lines, line] if state == "present" else [x for x in lines if x != line]
    machine.note("{} {} {}".format(line, "in" if state == "present" else "no longer in", path))
    if machine.check:
        return
    if not kept and create:
        os.unlink(path)
        return
    keep = f"{stat.S_IMODE(os.stat(path).st_mode):04o}" if os.path.exists(path) else mode
    place(path, "".join(x + "\n" for x in kept).encode(), keep)
