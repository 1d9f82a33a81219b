# SPDX-License-Identifier: Apache-2.0
"""Accounts and groups on macOS, through sysadminctl, dseditgroup and dscl.

macOS keeps no expiry date of an account: the login key's own `expiry-time` and the session script end it.
"""

from __future__ import annotations

import grp
import os
import pwd

from . import sessions
from .linux import next_uid, remember
from .machine import Failed

LOGIN = "com.apple.access_ssh"


def group(machine, name, state="present"):
    """A group exists, or does not."""
    try:
        grp.getgrnam(name)
        there = True
    except KeyError:
        there = False
    if state == "present" and not there:
        machine.run("dseditgroup", "-o", "create", name)
    elif state == "absent" and there:
        machine.run("dseditgroup", "-o", "delete", name)


def account(machine, name, shell, groups=(), home=None, comment="", expires="", last_uid=None):
    """A login account exists with no usable password, and is a member of `groups` and of the SSH service's group."""
    home = home or "/Users/" + name
    try:
        is_ = pwd.getpwnam(name)
    except KeyError:
        uid = next_uid(last_uid)
        node = "/Users/" + name
        machine.run(
            "sysadminctl", "-addUser", name, "-fullName", comment or name, "-UID", str(uid), "-shell", shell,
            "-home", home, "-password", "*",
        )  # fmt: skip
        # Without an authentication authority no password, not even the one above, opens the account.
        machine.run("dscl", ".", "-delete", node, "AuthenticationAuthority", fine=(0, 1, 56))
        machine.run("dscl", ".", "-create", node, "Password", "*")
        machine.run("dscl", ".", "-create", node, "IsHidden", "1")
        machine.run("createhomedir", "-c", "-u", name)
        machine.run("chmod", "0700", home)
        if last_uid and not machine.check:
            remember(last_uid, uid)
        if not machine.check and os.stat(home).st_uid == 0:  # one that was kept when they went
            sessions.give(home, 0, uid, pwd.getpwnam(name).pw_gid)
        machine.facts["uid"] = uid
        members = ()
    else:
        machine.facts["uid"] = is_.pw_uid
        if is_.pw_uid < 1000 and not is_.pw_uid >= 20000:
            raise Failed(f"{name} is not an account that Lab made", "declare another name")
        if is_.pw_shell != shell:
            machine.run("dscl", ".", "-create", "/Users/" + name, "UserShell", shell)
        members = {g.gr_name for g in grp.getgrall() if name in g.gr_mem}
    for one in (*groups, LOGIN):
        if one not in members:
            machine.run("dseditgroup", "-o", "edit", "-a", name, "-t", "user", one)
    if "admin" in members:
        machine.run("dseditgroup", "-o", "edit", "-d", name, "-t", "user", "admin")


def retire(machine, name, stage="lock"):
    """`lock`: nobody can log in any more. `remove`: the account and its home are gone. `forget`: the home stays."""
    try:
        is_ = pwd.getpwnam(name)
    except KeyError:
        return
    if stage == "lock":
        if is_.pw_shell != "/usr/bin/false":
            machine.run("dseditgroup", "-o", "edit", "-d", name, "-t", "user", LOGIN, fine=(0, 1, 64))
            machine.run("dscl", ".", "-create", "/Users/" + name, "UserShell", "/usr/bin/false")
        return
    machine.run("sysadminctl", "-deleteUser", name, *(["-keepHome"] if stage == "forget" else []))
    if stage == "remove" and os.path.isdir(is_.pw_dir) and is_.pw_dir.startswith("/Users/"):
        machine.run("rm", "-rf", is_.pw_dir)
