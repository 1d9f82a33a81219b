# SPDX-License-Identifier: Apache-2.0
"""Services that run, and what all of them share."""

from __future__ import annotations

import os

from . import files
from .machine import Failed


def systemd():
    return os.path.isdir("/run/systemd/system")


def reload(machine, service, check=None, pid_file=None):
    """A running service has read its configuration anew; nothing where it does not run."""
    if check == "sshd":
        refused = files.sshd(machine)
        if refused:
            raise Failed(f"{service} refuses its configuration: {refused}", "mend it, then apply again")
    if pid_file and os.path.exists(pid_file):
        with open(pid_file, encoding="utf-8") as f:
            machine.run("kill", "-HUP", f.read().strip(), fine=(0, 1))
    elif systemd():
        machine.run("systemctl", "reload-or-try-restart", service, fine=(0, 5))


FSTAB = "/etc/fstab"
HIDDEN = "proc /proc proc defaults,hidepid=2 0 0"


def proc(machine, state="present"):
    """The process list shows each user only their own processes (Linux), now and after a restart.

    `state: absent` shows all again, if it was Lab that hid them: its line in fstab says so.
    """
    if not os.path.exists("/proc/mounts"):
        return
    with open("/proc/mounts", encoding="utf-8") as f:
        options = next((x.split()[3] for x in f if x.split()[1] == "/proc"), "")
    hidden = "hidepid=2" in options or "hidepid=invisible" in options
    ours = False
    if os.path.exists(FSTAB):
        with open(FSTAB, encoding="utf-8") as f:
            ours = HIDDEN in f.read().splitlines()
    if state == "present" and not hidden:
        # The line is what says that it was Lab: it is there before and stays until after.
        files.line(machine, FSTAB, HIDDEN)
        machine.run("mount", "-o", "remount,hidepid=2", "/proc")
    elif state == "absent" and ours:
        machine.run("mount", "-o", "remount,hidepid=0", "/proc")
        files.line(machine, FSTAB, HIDDEN, state="absent")
