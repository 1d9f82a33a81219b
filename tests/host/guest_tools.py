"""What the scripts inside the guests' sandbox share: commands, keys, sessions, a snapshot, and the report."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

LAB, STORE = Path("/home/owner/lab"), Path("/srv/lab/store")
report: dict[str, Any] = {"round": {}, "refused": {}}
PORT = 0
"""Of the sandbox's sshd; set when it has started."""


def sh(command: str, user: str = "") -> str:
    argv = ["su", "-s", "/bin/bash", user, "-c", command] if user else ["bash", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def must(command: str) -> str:
    out = sh(command)
    assert out.endswith("[0]"), f"{command}: {out}"
    return out


def key(name: str) -> str:
    path = Path(f"/root/keys/{name}")
    path.parent.mkdir(exist_ok=True, mode=0o700)
    must(f"ssh-keygen -q -t ed25519 -N '' -C {name} -f {path}")
    return path.with_suffix(".pub").read_text().strip()


def snapshot() -> dict[str, str]:
    """Every file a guest's coming and going may touch: type, mode, owner, access list and content."""
    out = {}
    skip = re.compile(
        r"/etc/.*-$|/var/spool/cron/atjobs/.SEQ|/etc/\.pwd\.lock|/etc/ld\.so\.cache|/home/owner/lab/state"
    )
    for top in ("/etc", "/home", "/srv", "/var/spool", "/var/mail", "/var/lib/lab"):
        for folder, folders, names in os.walk(top):
            folders[:] = [f for f in folders if f not in ("host", "dpkg", "apt", "docker")]
            for each in [folder, *(os.path.join(folder, n) for n in names)]:
                if skip.match(each) or not os.path.lexists(each):
                    continue
                s = os.lstat(each)
                acl = b""
                with contextlib.suppress(OSError):
                    acl = os.getxattr(each, "system.posix_acl_access", follow_symlinks=False)
                text = hashlib.sha256(Path(each).read_bytes()).hexdigest() if os.path.isfile(each) else ""
                out[each] = f"{s.st_mode:o} {s.st_uid}:{s.st_gid} {acl.hex()} {text}"
    return out


def ssh(who: str, command: str, options: str = "", with_key: str = "", before: str = "") -> str:
    return sh(
        f"{before} timeout 20 ssh -F none -p {PORT} -i /root/keys/{with_key or who} -o IdentitiesOnly=yes -o BatchMode=yes "  # noqa: E501
        f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {options} {who}@127.0.0.1 "
        + (f"'{command}'" if command else "")
    )


def hour(offset: int) -> str:
    return time.strftime("%H:%M", time.localtime(time.time() + offset * 3600))
