"""Guest files: what root keeps for a guest, as text. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

FOLDER = "/etc/lab/guests"
"""One folder per guest, root's; a guest may read it and nothing more."""
GROUP = "lab-guests"
SESSION = "/etc/lab/session"
"""The program every login of a guest runs."""
START = "/etc/lab/start"
"""The program by which the broker starts something in a guest's account; sudo lets the owner run it, and it alone."""
CLIENT = "/etc/lab/bin/lab"
"""What a guest calls `lab`."""
PYTHON = "/etc/lab/python"
"""A Python that guests can read."""
BROKER = "/var/lib/lab"
"""The broker's folder: its socket, and the code that guests run. The owner's; guests may enter it."""
SOCKET = f"{BROKER}/guests.sock"
KIT = f"{BROKER}/kit"
MATCH = "/etc/ssh/sshd_config.d/10-lab-guests.conf"

ULIMITS = {"memory": ("v", 1024), "processes": ("u", 1), "file": ("f", 1024), "cpu": ("t", 1), "open_files": ("n", 1)}
"""Limit → bash's `ulimit` letter and its unit."""
PAM = {"memory": ("as", 1024), "processes": ("nproc", 1), "file": ("fsize", 1024), "cpu": ("cpu", 60)}
"""Limit → item of limits.conf(5) and its unit; they hold for logins that are not over ssh."""


def is_key(kind: str, data: str) -> bool:
    """Whether base64 data is a public ssh key of the kind it is said to be."""
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return False
    length = int.from_bytes(raw[:4], "big")
    return raw[4 : 4 + length].decode("ascii", "replace") == kind and len(raw) > 4 + length


def authorized_keys(keys: Iterable[str], expires: str) -> str:
    """One line per key: no forwarding of any kind, a terminal, and an end (the first day it no longer opens)."""
    options = "restrict,pty" + (f',expiry-time="{expires.replace("-", "")}"' if expires else "")
    return "".join(f"{options} {key}\n" for key in keys)


def match(folder: str = FOLDER) -> str:
    """sshd's rules for guests; a `Match` block ends with its file."""
    return f"""# Written by Lab: every guest.
Match Group {GROUP}
    AuthenticationMethods publickey
    AuthorizedKeysFile {folder}/%u/authorized_keys
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    ForceCommand {SESSION}
    DisableForwarding yes
    AllowTcpForwarding no
    AllowStreamLocalForwarding no
    AllowAgentForwarding no
    X11Forwarding no
    GatewayPorts no
    PermitTunnel no
    PermitUserRC no
    PermitListen none
    PermitOpen none
    MaxSessions 4
    ClientAliveInterval 60
    ClientAliveCountMax 3
"""


def rules(expires: str, hours: str, shell: bool, limits: Mapping[str, int]) -> str:
    """What the session script of a guest asks for: shell assignments of checked words."""
    start, _, end = hours.partition("-")
    lines = [f"UNTIL={expires}", f"FROM={start}", f"TO={end}", f"SHELL_ALLOWED={'yes' if shell else 'no'}"]
    lines += [
        f"ulimit -{ULIMITS[k][0]} {max(1, v // ULIMITS[k][1])}" for k, v in sorted(limits.items()) if k in ULIMITS
    ]
    return "# Written by Lab.\n" + "\n".join(lines) + "\n"


def pam(name: str, limits: Mapping[str, int], sessions: int) -> str:
    """limits.conf(5) for logins of a guest that come another way than ssh."""
    lines = [f"{name} hard {PAM[k][0]} {max(1, v // PAM[k][1])}" for k, v in sorted(limits.items()) if k in PAM]
    return (
        "# Written by Lab.\n" + "\n".join([*lines, f"{name} hard maxlogins {sessions}", f"{name} hard core 0"]) + "\n"
    )


def guide(
    name: str,
    lab: str,
    message: str,
    may: Iterable[str],
    expires: str,
    hours: str,
    limits: Mapping[str, str],
    shell: bool,
) -> str:
    """What a guest is shown at login: what they may do, and how."""
    lines = [f"Welcome to {lab}, {name}.", ""]
    if message:
        lines += [message.rstrip(), ""]
    given = sorted(may)
    lines += ["You may use:", *(f"  {g}" for g in given)] if given else ["Nothing has been opened to you yet."]
    lines += ["", "How:", "  lab list                  what you may use, and where it is"]
    runs = [g.partition(".")[2] for g in given if g.startswith("experiment.")]
    if runs:
        lines += [
            f"  lab run {runs[0]:<18}start an experiment; -d in the background",
            "  lab runs                  yours",
        ]
        lines += ["  lab logs RUN -f           what one prints", "  lab stop RUN              end one"]
    lines += ["  lab log                   what was noted of you", ""]
    if not shell:
        lines.append("This account has no shell: it runs `lab ...` only.")
    if expires:
        lines.append(f"Your access ends on {expires}.")
    if hours:
        lines.append(f"You may log in from {hours.replace('-', ' to ')}.")
    lines += [f"Limit: {k.replace('_', ' ')} {v}" for k, v in sorted(limits.items())]
    lines.append("What you do here is recorded.")
    return "\n".join(lines) + "\n"
