"""guest: who may use what, and what was done by whom: the lab's audit log."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.adapters import audit
from lab.app.lab import Lab
from lab.apply.events import Event
from lab.core.guest_files import GROUP
from lab.core.problem import did_you_mean, problem
from lab.core.units import size
from lab.kinds.guest import Guest

SHOWN = ("run", "generation", "commit", "outcome", "state", "seconds", "bytes", "code", "why", "cut", "projects")
"""What of an entry is shown beside who did what."""
LINE = re.compile(r"lab-guest(?:\[\d+\])?: (?P<who>[a-z_][a-z0-9_-]*) (?P<text>.*)")


def path(lab: Lab) -> Path:
    """The lab's audit log."""
    return lab.state / "audit.jsonl"


def note(lab: Lab, what: str, **more: Any) -> None:
    """What was done to the lab stands in its audit log; a log that cannot be written is told, and undoes nothing."""
    try:
        audit.append(path(lab), pwd.getpwuid(os.getuid()).pw_name, what, **more)
    except (OSError, KeyError) as e:
        lab.tell(Event("say", text=f"the audit log could not be written: {e}"))


def guests(lab: Lab) -> list[dict[str, Any]]:
    """Every declared guest: `{guest, account, person, expires, may, there}`."""
    out = []
    for address, declaration in lab.declarations.items():
        if isinstance(declaration, Guest):
            name = declaration.name(lab.context(address))
            try:
                pwd.getpwnam(name)
                there = True
            except KeyError:
                there = False
            may = [str(m) for m in declaration.may]
            out.append(
                {
                    "guest": str(address),
                    "account": name,
                    "person": declaration.person,
                    "expires": declaration.expires or "never",
                    "may": may,
                    "there": there,
                }
            )
    return out


def activity(lab: Lab, name: str = "") -> list[dict[str, Any]]:
    """What guests did, oldest first: logins as the system's log tells them, and what Lab did for them.

    Each is `{at, who, what, source}`. The system's log is readable to root and the group adm only: anyone else sees
    Lab's own entries.
    """
    known = {g["account"] for g in guests(lab)} | {str(e.get("who")) for e in audit.entries(path(lab))}
    if name and name not in known:
        raise problem(f"no guest is called {name}{did_you_mean(name, known)}", do="see `lab guest list`")
    found = [{**e, "source": "lab"} for e in audit.entries(path(lab), name)]
    found += [e for e in _system() if not name or e["who"] == name]
    return sorted(found, key=lambda e: float(e["at"]))


def lines(found: list[dict[str, Any]]) -> str:
    """Activity as text, a line each. Pure."""
    out = []
    for e in found:
        more = {k: e[k] for k in SHOWN if e.get(k) not in (None, "", [])}
        shown = " ".join(f"{k}={_short(k, v)}" for k, v in more.items() if (k, v) != ("code", 0))
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(e["at"])))
        out.append(f"{when}  {e['who']:<12} {e['what']}" + (f"  {shown}" if shown else ""))
    return "\n".join(out) or "Nothing yet."


def _short(key: str, value: Any) -> str:
    if key == "bytes":
        return size(int(value))
    if isinstance(value, list):
        return ",".join(str(v) for v in value)
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _system() -> Iterator[dict[str, Any]]:
    """What the session script told the system's log: by journald, else by the log file."""
    if shutil.which("journalctl") and Path("/run/systemd/system").is_dir():
        done = subprocess.run(
            ["journalctl", "-t", "lab-guest", "-o", "short-unix", "--no-pager"], capture_output=True, text=True
        )
        lines = done.stdout.splitlines()
        for line in lines:
            stamp, _, rest = line.partition(" ")
            if (m := LINE.search(rest)) and stamp.replace(".", "", 1).isdigit():
                yield {"at": float(stamp), "who": m["who"], "what": m["text"], "source": "journal"}
        return
    for log in (Path("/var/log/auth.log"), Path("/var/log/system.log")):
        if log.is_file() and os.access(log, os.R_OK):
            year = time.localtime().tm_year
            for line in log.read_text(errors="replace").splitlines():
                if m := LINE.search(line):
                    yield {"at": _when(line, year), "who": m["who"], "what": m["text"], "source": log.name}


def _when(line: str, year: int) -> float:
    """The time of a syslog line, which names no year."""
    try:
        return time.mktime(time.strptime(f"{year} {line[:15]}", "%Y %b %d %H:%M:%S"))
    except ValueError:
        from datetime import datetime

        try:
            return datetime.fromisoformat(line.split(" ", 1)[0]).timestamp()
        except ValueError:
            return 0.0


def refuse_guests() -> None:
    """Raises a Problem where the one who asks is a guest: guests look and run, and never change the lab."""
    import grp

    try:
        members = grp.getgrnam(GROUP).gr_mem
    except KeyError:
        return
    who = pwd.getpwuid(os.getuid()).pw_name
    if who in members:
        raise problem(
            "guests may not do this",
            why=f"{who} is in the group {GROUP}, whose members run and look",
            do="ask the owner of the lab",
        )
