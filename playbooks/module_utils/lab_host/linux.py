# SPDX-License-Identifier: Apache-2.0
"""Accounts and groups on Linux, through shadow's own tools."""

from __future__ import annotations

import datetime
import grp
import os
import pwd
import shutil

from . import sessions
from .machine import Failed


def group(machine, name, state="present"):
    """A system group exists, or does not."""
    try:
        grp.getgrnam(name)
        there = True
    except KeyError:
        there = False
    if state == "present" and not there:
        machine.run("groupadd", "--system", name)
    elif state == "absent" and there:
        machine.run("groupdel", name)


def account(machine, name, shell, groups=(), home=None, comment="", expires="", last_uid=None):
    """A login account exists, with no password, these supplementary groups only, and an end.

    `expires` is a date, the first day it is shut. `last_uid` names a file that remembers the highest uid ever given,
    so that none is given twice: a new guest never inherits an old one's files.
    """
    home = home or "/home/" + name
    ends = str(day(expires)) if expires else ""
    try:
        is_ = pwd.getpwnam(name)
    except KeyError:
        uid = next_uid(last_uid)
        if last_uid and not machine.check:
            remember(last_uid, uid)  # before it is given: a kill between the two must not let it be given again
        machine.run(
            "useradd", "--uid", str(uid), "--user-group", "--create-home", "--home-dir", home, "--shell", shell,
            "--comment", comment, "--groups", ",".join(groups), "--password", "*", "--expiredate", ends, name,
        )  # fmt: skip
        if not machine.check:
            taken(name, home)
            os.chmod(home, 0o700)
        machine.facts["uid"] = uid
        return
    machine.facts["uid"] = is_.pw_uid
    if is_.pw_uid < 1000:
        raise Failed(f"{name} is an account of the system", "declare another name")
    wrong = []
    if is_.pw_shell != shell:
        wrong += ["--shell", shell]
    if is_.pw_gecos != comment:
        wrong += ["--comment", comment]
    if sorted(g.gr_name for g in grp.getgrall() if name in g.gr_mem) != sorted(groups):
        wrong += ["--groups", ",".join(groups)]
    shut, password = shadow(name)
    if shut != ends:
        wrong += ["--expiredate", ends]
    if password != "*":
        wrong += ["--password", "*"]
    if wrong:
        machine.run("usermod", *wrong, name)
    if not machine.check and os.path.isdir(home) and os.stat(home).st_uid != is_.pw_uid:
        machine.note(f"owner of {home} is {name}")
        taken(name, home)
    if os.path.isdir(home) and os.stat(home).st_mode & 0o777 != 0o700:
        machine.note(f"mode of {home} is 0700")
        if not machine.check:
            os.chmod(home, 0o700)


def taken(name, home):
    """A home that was kept as root's when they went is theirs; its top comes last, and says that all of it is."""
    is_ = pwd.getpwnam(name)
    if os.stat(home).st_uid == 0:
        sessions.give(home, 0, is_.pw_uid, is_.pw_gid)


def day(date):
    """A date as days since 1970, as shadow keeps it; taken in the machine's own zone, without hours."""
    return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days


def shadow(name):
    """(day it is shut as text, password field) of an account."""
    with open("/etc/shadow", encoding="utf-8") as f:
        for entry in f:
            fields = entry.rstrip("\n").split(":")
            if fields[0] == name:
                return fields[7], fields[1]
    return "", ""


def next_uid(last_uid):
    """A uid above all that were ever given."""
    highest = 19999
    if last_uid and os.path.exists(last_uid):
        with open(last_uid, encoding="utf-8") as f:
            highest = int(f.read().strip() or highest)
    taken = {u.pw_uid for u in pwd.getpwall()} | {g.gr_gid for g in grp.getgrall()}
    highest = max([highest, *(u for u in taken if 20000 <= u < 60000)])
    return highest + 1


def remember(path, uid):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(f"{uid}\n")
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".new", path)


def retire(machine, name, stage="lock"):
    """`lock`: nobody can log in any more. `remove`: the account and its home are gone. `forget`: the home stays."""
    try:
        is_ = pwd.getpwnam(name)
    except KeyError:
        return
    if is_.pw_uid < 1000:
        raise Failed(f"{name} is an account of the system", "remove it by hand if you mean it")
    if stage == "lock":
        if shadow(name)[0] != "1" or not is_.pw_shell.endswith("nologin"):
            machine.run("usermod", "--expiredate", "1", "--shell", "/usr/sbin/nologin", name)
        return
    # The home goes first: an account that is gone could not tell any more whose it was.
    if stage == "remove" and os.path.isdir(is_.pw_dir) and os.stat(is_.pw_dir).st_uid == is_.pw_uid:
        machine.note(f"removed {is_.pw_dir}")
        if not machine.check:
            shutil.rmtree(is_.pw_dir)
    machine.run("userdel", "--force", name, fine=(0, 6))
