"""Guest files: what root keeps for a guest, as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FOLDER = "/etc/lab/guests"
"""One folder per guest, root's; a guest may read it and nothing more."""
GROUP = "lab-guests"
SESSION = "/etc/lab/session"
MATCH = "/etc/ssh/sshd_config.d/10-lab-guests.conf"

ULIMITS = {"memory": ("v", 1024), "processes": ("u", 1), "file": ("f", 1024), "cpu": ("t", 1), "open_files": ("n", 1)}
"""Limit → bash's `ulimit` letter and its unit."""
PAM = {"memory": ("as", 1024), "processes": ("nproc", 1), "file": ("fsize", 1024), "cpu": ("cpu", 60)}
"""Limit → item of limits.conf(5) and its unit; they hold for logins that are not over ssh."""


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
    lines += [f"ulimit -{ULIMITS[k][0]} {max(1, v // ULIMITS[k][1])}" for k, v in sorted(limits.items())]
    return "# Written by Lab.\n" + "\n".join(lines) + "\n"


def pam(name: str, limits: Mapping[str, int], sessions: int) -> str:
    """limits.conf(5) for logins of a guest that come another way than ssh."""
    lines = [f"{name} hard {PAM[k][0]} {max(1, v // PAM[k][1])}" for k, v in sorted(limits.items()) if k in PAM]
    return (
        "# Written by Lab.\n" + "\n".join([*lines, f"{name} hard maxlogins {sessions}", f"{name} hard core 0"]) + "\n"
    )


def session() -> str:
    """The program every guest's login runs, whatever was asked for: it checks, limits, notes, then hands over."""
    return f"""#!/bin/bash
# Written by Lab: what a guest's login runs, whatever was asked for.
set -u
PATH=/usr/local/bin:/usr/bin:/bin
guest=$(id -un)
rules={FOLDER}/$guest/rules
refuse() {{ echo "lab: $1" >&2; logger -t lab-guest -p auth.notice -- "$guest refused: $1" 2>/dev/null; exit 77; }}
[ -r "$rules" ] || refuse "this account is no guest of the lab"
ulimit -c 0
# A limit that this system does not know is left out; the plan says so.
while read -r line; do
  case $line in ulimit*) $line 2>/dev/null ;; [A-Z]*=*) declare "$line" ;; esac
done < "$rules"
today=$(date +%Y-%m-%d) now=$(date +%H:%M)
if [ -n "$UNTIL" ] && ! [[ $today < $UNTIL ]]; then refuse "your access ended on $UNTIL"; fi
if [ -n "$FROM" ]; then
  if [[ $FROM < $TO ]]; then [[ ! $now < $FROM && $now < $TO ]] || refuse "you may log in from $FROM to $TO"
  else [[ ! $now < $FROM || $now < $TO ]] || refuse "you may log in from $FROM to $TO"; fi
fi
asked=${{SSH_ORIGINAL_COMMAND:-}}
logger -t lab-guest -p auth.info -- "$guest from ${{SSH_CONNECTION%% *}}: ${{asked:-login}}" 2>/dev/null
umask 077
if [ "$SHELL_ALLOWED" = no ]; then
  case "$asked" in
    "lab guest "*) read -r -a words <<< "$asked"; exec "${{words[@]}}" ;;
    *) cat "{FOLDER}/$guest/guide"; refuse "this account runs \\`lab guest ...\\` only" ;;
  esac
fi
if [ -n "$asked" ]; then exec "$SHELL" -c "$asked"; fi
cat "{FOLDER}/$guest/guide"
exec "$SHELL" -l
"""


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
    lines += ["", "  lab guest list            what you may use", "  lab guest run NAME        start one", ""]
    if not shell:
        lines.append("This account has no shell: it runs `lab guest ...` only.")
    if expires:
        lines.append(f"Your access ends on {expires}.")
    if hours:
        lines.append(f"You may log in from {hours.replace('-', ' to ')}.")
    lines += [f"Limit: {k.replace('_', ' ')} {v}" for k, v in sorted(limits.items())]
    lines.append("What you do here is recorded.")
    return "\n".join(lines) + "\n"
