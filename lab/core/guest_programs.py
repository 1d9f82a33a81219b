"""Guest programs: what runs in a guest's account, as text: their login, what is started there, their `lab`. Pure."""

from __future__ import annotations

import plistlib

from lab.core.guest_files import BROKER, CLIENT, FOLDER, GROUP, KIT, PYTHON, START
from lab.core.schedule import quoted

RULES = f"""set -u
PATH=/etc/lab/bin:/usr/local/bin:/usr/bin:/bin
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
"""
"""What every program begins with: who it is, what they may, and their limits, which no process of theirs can raise."""
LABEL = "org.lab.guests"
ENDED = """if [ -n "$UNTIL" ] && ! [[ $today < $UNTIL ]]; then refuse "your access ended on $UNTIL"; fi
"""


def session() -> str:
    """The program every guest's login runs, whatever was asked for: it checks, limits, notes, then hands over."""
    return f"""#!/bin/bash
# Written by Lab: what a guest's login runs, whatever was asked for.
{RULES}{ENDED}if [ -n "$FROM" ]; then
  if [[ $FROM < $TO ]]; then [[ ! $now < $FROM && $now < $TO ]] || refuse "you may log in from $FROM to $TO"
  else [[ ! $now < $FROM || $now < $TO ]] || refuse "you may log in from $FROM to $TO"; fi
fi
asked=${{SSH_ORIGINAL_COMMAND:-}}
logger -t lab-guest -p auth.info -- "$guest from ${{SSH_CONNECTION%% *}}: ${{asked:-login}}" 2>/dev/null
( {CLIENT} --login "${{SSH_CONNECTION%% *}}: ${{asked:-a shell}}" & ) </dev/null >/dev/null 2>&1
umask 077
if [ "$SHELL_ALLOWED" = no ]; then
  case "$asked" in
    "lab "*) read -r -a words <<< "$asked"; exec {CLIENT} "${{words[@]:1}}" ;;
    *) cat "{FOLDER}/$guest/guide"; refuse "this account runs \\`lab ...\\` only" ;;
  esac
fi
if [ -n "$asked" ]; then exec "$SHELL" -c "$asked"; fi
cat "{FOLDER}/$guest/guide"
exec "$SHELL" -l
"""


def start() -> str:
    """What the broker runs in a guest's account, what is to be done being on its standard input."""
    return f"""#!/bin/bash
# Written by Lab: what the broker does in a guest's account, under the guest's limits. `end` ends all they run.
{RULES}if [ "${{1:-}}" != end ]; then
{ENDED}fi
umask 077
cd ~ || exit 1
exec env -i HOME="$HOME" USER="$guest" LOGNAME="$guest" SHELL=/bin/bash LANG=C.UTF-8 PATH="$PATH" \\
  {PYTHON} -I -c 'import sys; sys.path.insert(0, "{KIT}"); from lab.runs.guest import main; main()' "$@"
"""


def client() -> str:
    """What a guest calls `lab`: it asks the broker, and shows the guest's own runs."""
    return f"""#!/bin/sh
# Written by Lab: `lab` as guests have it.
exec {PYTHON} -I -c 'import sys; sys.path.insert(0, "{KIT}"); from lab.cli._guest import run; run()' "$@"
"""


def profile() -> tuple[str, str]:
    """(path, content): a login shell of a guest finds `lab`, on Linux."""
    content = f"""# Written by Lab.
case " $(id -Gn) " in *" {GROUP} "*) PATH=/etc/lab/bin:$PATH ;; esac
"""
    return "/etc/profile.d/lab-guests.sh", content


def paths() -> tuple[str, str]:
    """(path, content): the same on macOS, where it is last on everyone's path and answers none but guests."""
    return "/etc/paths.d/lab-guests", "/etc/lab/bin\n"


def sudoers(owner: str) -> str:
    """sudo's rule for the broker: the owner may run one program, in guests' accounts only."""
    return f"# Written by Lab: the broker starts guests' runs.\n{owner} ALL=(%{GROUP}) NOPASSWD: {START}\n"


def words(root: str, stage: str = "") -> list[str]:
    """The broker's command line; `@PYTHON@` is filled in on the host. Pure."""
    return ["@PYTHON@", "-m", "lab", "-C", root, "guest", "serve", *([f"stage={stage}"] if stage else [])]


def systemd(root: str, stage: str = "") -> str:
    """The broker as systemd runs it, as `@OWNER@`; guests' runs outlive its restart."""
    return f"""# Written by Lab.
[Unit]
Description=Lab: answers guests and starts their runs

[Service]
User=@OWNER@
ExecStart={" ".join(quoted(w) for w in words(root, stage))}
WorkingDirectory={BROKER}
Restart=always
RestartSec=2
KillMode=process
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def launchd(root: str, stage: str = "") -> str:
    """The broker as launchd runs it, as `@OWNER@`."""
    job = {
        "Label": LABEL,
        "UserName": "@OWNER@",
        "ProgramArguments": words(root, stage),
        "WorkingDirectory": BROKER,
        "KeepAlive": True,
        "RunAtLoad": True,
        "AbandonProcessGroup": True,
        "Umask": 0o077,
        "StandardErrorPath": f"{BROKER}/broker.log",
        "EnvironmentVariables": {"PATH": "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
    }
    return plistlib.dumps(job).decode()
