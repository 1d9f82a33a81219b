"""Accounts: who is on this machine and what they may touch, read directly."""

from __future__ import annotations

import contextlib
import datetime
import errno
import grp
import os
import pwd
import re
import struct
import sys
from typing import Any

from lab.core.guest_files import FOLDER
from lab.core.problem import Unknown

_TAGS = {"user": 0x02, "group": 0x08}


def account(name: str) -> dict[str, Any] | None:
    """`{account, person, shell, groups, expires}` of a login account; None where there is none.

    The end is the one in the guest's root-owned key file, which ends every login; root also reads the account's own,
    and says that one where they differ.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = sorted(g.gr_name for g in grp.getgrall() if name in g.gr_mem and g.gr_name != "com.apple.access_ssh")
    return {
        "account": name,
        "person": found.pw_gecos,
        "shell": found.pw_shell,
        "groups": groups,
        "expires": _expires(name),
    }


def _expires(name: str) -> str:
    key = "never"
    try:
        with open(f"{FOLDER}/{name}/authorized_keys") as f:
            found = re.findall(r'expiry-time="(\d{4})(\d\d)(\d\d)"', f.read())
        if found:
            key = max("-".join(part) for part in found)
    except FileNotFoundError:
        pass
    except OSError as e:
        raise Unknown(f"the keys of {name}: {e.strerror}") from e
    if sys.platform == "darwin" or os.geteuid():
        return key
    with contextlib.suppress(OSError), open("/etc/shadow") as f:
        for line in f:
            fields = line.split(":")
            if fields[0] == name:
                day = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(fields[7])) if fields[7] else "never"
                return str(day)
    return key


def acl(path: str, user: str = "", group: str = "") -> str | None:
    """What an access list grants a person or a group at `path`: `read`, `enter`, `write` or `none`; None: no entry."""
    if sys.platform == "darwin":
        return _acl_darwin(path, f"user:{user}" if user else f"group:{group}")
    try:
        number = pwd.getpwnam(user).pw_uid if user else grp.getgrnam(group).gr_gid
    except KeyError:
        return None
    try:
        raw = os.getxattr(path, "system.posix_acl_access")
    except OSError as e:
        if e.errno in (errno.ENODATA, errno.ENOENT, errno.ENOTSUP):
            return None
        raise Unknown(f"{path}: {e.strerror}") from e
    tag = _TAGS["user" if user else "group"]
    for at in range(4, len(raw), 8):
        kind, bits, who = struct.unpack_from("<HHI", raw, at)
        if kind == tag and who == number:
            return _word(bits)
    return None


def _word(bits: int) -> str:
    if bits & 2:
        return "write"
    return "read" if bits & 4 else "enter" if bits & 1 else "none"


def _acl_darwin(path: str, person: str) -> str | None:
    import subprocess

    done = subprocess.run(["/bin/ls", "-led", path], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if f" {person} " in line:
            if " deny " in line:
                return "none"
            return "write" if "write" in line else "read" if "read" in line else "enter"
    return None


def members(group: str) -> list[str]:
    """Who is in a group, sorted; nobody where there is none."""
    try:
        return sorted(grp.getgrnam(group).gr_mem)
    except KeyError:
        return []
