# SPDX-License-Identifier: Apache-2.0
"""The owner's broker: it answers guests on a unix socket, as a service of the system where there is one."""

from __future__ import annotations

import grp
import json
import os
import platform
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time

from . import files, services
from .machine import Failed

FOLDER = "/var/lib/lab"
SOCKET = FOLDER + "/guests.sock"
PYTHON = "/etc/lab/python"
SUDOERS = "/etc/sudoers.d/zz-lab-guests"  # of sudo's rules the last that fits holds, so this one is read last
UNIT = "/etc/systemd/system/lab-guests.service"
LABEL = "org.lab.guests"
PLIST = f"/Library/LaunchDaemons/{LABEL}.plist"


def broker(machine, root, version, systemd, launchd, sudoers, closed=(), group="lab-guests", stage=""):
    """The broker of the lab at `root` answers, in this version, as the owner of that folder."""
    owner = pwd.getpwuid(os.stat(root).st_uid)
    folder(machine, owner, group)
    python(machine, [*closed, owner.pw_dir])
    filled = {"@OWNER@": owner.pw_name, "@PYTHON@": sys.executable}
    if owner.pw_uid and not shutil.which("sudo"):
        raise Failed("the broker needs sudo to start runs in guests' accounts", "install sudo, then apply again")
    if owner.pw_uid and os.path.isdir(os.path.dirname(SUDOERS)):
        visudo = ["visudo", "-cf", SUDOERS]
        files.file(machine, SUDOERS, content=fill(sudoers, filled), mode="0440", validate=visudo)
    before = list(machine.done)
    if platform.system() == "Darwin":
        files.file(machine, PLIST, content=fill(launchd, filled))
    elif services.systemd():
        files.file(machine, UNIT, content=fill(systemd, filled))
    if machine.done == before and ask("version").get("version") == version:
        return
    machine.note("started the broker")
    if machine.check:
        return
    ask("end")
    begin(machine, owner, root, stage)
    end = time.monotonic() + 60
    while ask("version").get("version") != version:
        if time.monotonic() > end:
            raise Failed(f"the broker does not answer: {log()}", "see `lab guest serve`")
        time.sleep(0.1)


def folder(machine, owner, group):
    """The broker's folder is the owner's, guests may pass it, and what is made there has their group."""
    if os.path.isdir(FOLDER):
        is_ = os.stat(FOLDER)
        if is_.st_uid != owner.pw_uid:
            raise Failed(
                f"guests of this machine are served by another account, {is_.st_uid}",
                "let one lab have the machine's guests",
            )
    else:
        machine.note(f"made {FOLDER}")
        if machine.check:
            return
        os.makedirs(FOLDER)
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return  # only in check mode: the group is made by an operation before
    is_ = os.stat(FOLDER)
    if (is_.st_uid, is_.st_gid, stat.S_IMODE(is_.st_mode)) != (owner.pw_uid, gid, 0o2710):
        machine.note(f"{FOLDER} is {owner.pw_name}'s")
        if not machine.check:
            os.chown(FOLDER, owner.pw_uid, gid)
            os.chmod(FOLDER, 0o2710)


def python(machine, closed):
    """A link to a Python that guests can read: Lab's own where it is, else the system's."""
    if os.path.islink(PYTHON) and usable(os.readlink(PYTHON), closed):
        return
    own = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    for each in (own, "/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3"):
        if usable(each, closed):
            machine.note(f"{PYTHON} is {each}")
            if not machine.check:
                os.makedirs(os.path.dirname(PYTHON), exist_ok=True)
                if os.path.lexists(PYTHON):
                    os.unlink(PYTHON)
                os.symlink(each, PYTHON)
            return
    raise Failed("guests can read no Python from 3.11 on", "install python3 for the whole system, then apply again")


def usable(path, closed):
    """Whether it runs, is new enough, and lies where anyone may read."""
    real = os.path.realpath(path)
    if any(real.startswith(c.rstrip("/") + "/") for c in closed) or not os.path.exists(real):
        return False
    at = real
    while at != "/":
        at = os.path.dirname(at)
        if not os.stat(at).st_mode & 0o001:
            return False
    said = subprocess.run(
        [real, "-I", "-c", "import sys; print(sys.version_info >= (3, 11))"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return said.stdout.strip() == "True"


def fill(text, values):
    for word, value in values.items():
        text = text.replace(word, value)
    return text


def begin(machine, owner, root, stage=""):
    """It runs: by launchd or systemd, else on its own."""
    if platform.system() == "Darwin":
        machine.ask("launchctl", "bootout", "system/" + LABEL)
        machine.run("launchctl", "bootstrap", "system", PLIST)
    elif services.systemd():
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "lab-guests.service")
        machine.run("systemctl", "restart", "lab-guests.service")
    else:
        groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
        env = {"HOME": owner.pw_dir, "USER": owner.pw_name, "PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        with open(FOLDER + "/broker.log", "ab") as log_:
            os.fchown(log_.fileno(), owner.pw_uid, owner.pw_gid)
            os.fchmod(log_.fileno(), 0o600)
            subprocess.Popen(
                [sys.executable, "-m", "lab", "-C", root, "guest", "serve", *([f"stage={stage}"] if stage else [])],
                stdin=subprocess.DEVNULL, stdout=log_, stderr=log_, cwd="/", env=env, start_new_session=True,
                user=owner.pw_uid, group=owner.pw_gid, extra_groups=groups, umask=0o077,
            )  # fmt: skip


def ask(word):
    """What the broker answers; empty where it is silent."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(10)
            s.connect(SOCKET)
            s.sendall(json.dumps({"ask": word}).encode() + b"\n")
            with s.makefile("rb") as f:
                found = json.loads(f.readline())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def log():
    try:
        with open(FOLDER + "/broker.log", encoding="utf-8", errors="replace") as f:
            return " ".join(f.read().splitlines()[-3:])[:300] or "it said nothing"
    except OSError:
        return "it said nothing"


def gone(machine):
    """No broker answers, and nothing of it is left."""
    if platform.system() == "Darwin" and os.path.exists(PLIST):
        machine.run("launchctl", "bootout", "system/" + LABEL, fine=(0, 3, 36, 113))
        files.absent(machine, PLIST)
    if os.path.exists(UNIT):
        machine.run("systemctl", "disable", "--now", "lab-guests.service", fine=(0, 1, 5))
        files.absent(machine, UNIT)
        machine.run("systemctl", "daemon-reload")
    if ask("version"):
        machine.note("ended the broker")
        if not machine.check:
            ask("end")
            for _ in range(100):
                if not ask("version"):
                    break
                time.sleep(0.05)
    for path in (SUDOERS, PYTHON):
        files.absent(machine, path)
    files.absent(machine, FOLDER, tree=True)
