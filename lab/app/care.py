"""care: what of the lab's upkeep is due or wrong, a line each with the command that mends it. Reads what was noted."""

from __future__ import annotations

import time
from collections.abc import Iterator

from lab.app import access, backup, maintenance
from lab.app.lab import Lab
from lab.core.problem import Problems, Unknown
from lab.core.units import duration, size


def care(lab: Lab) -> list[tuple[bool, str]]:
    """(whether it asks for you, what is so): backups, maintenance, room on disk, a changed sshd that waits."""
    out: list[tuple[bool, str]] = []
    for part in (_sshd, _backups, _maintenance):
        try:
            out += part(lab)
        except (Problems, Unknown, OSError) as e:
            said = e.problems[0].summary if isinstance(e, Problems) else str(e)
            out.append((True, said))
    return out


def _sshd(lab: Lab) -> Iterator[tuple[bool, str]]:
    waiting = access.pending()
    if waiting and waiting["until"] > time.time():
        yield True, f"sshd goes back in {duration(waiting['until'] - time.time())}: log in anew, `lab access confirm`"


def _backups(lab: Lab) -> Iterator[tuple[bool, str]]:
    for one in backup.status(lab):
        parts = ("snapshot", "check", "drill")
        ages = ", ".join(f"{p} {'never' if one[p] is None else duration(one[p]) + ' ago'}" for p in parts)
        do = f": `lab backup now {one['backup']}`" if one["late"] else ""
        yield bool(one["late"]), f"backup.{one['backup']}  {ages}{do}"


def _maintenance(lab: Lab) -> Iterator[tuple[bool, str]]:
    if not (lab.state / "maintenance" / "settings.json").exists():
        return
    applied = maintenance.settings(lab)
    due = maintenance.due(lab)
    own = [d["task"] for d in due if d["task"] in maintenance.DOERS]
    if own:
        yield True, f"due: {', '.join(own)}: `lab maintenance run`"
    for each in (d for d in due if d["task"] not in maintenance.DOERS):
        yield True, f"due: {each['task']} ({each['every']}): do it, then `lab maintenance run '{each['task']}'`"
    place, free = maintenance.room(lab)
    if free < applied["free"]:
        yield True, f"{size(free)} free at {place}, less than {size(applied['free'])}: `lab maintenance clean`"
    last = next((e for e in reversed(maintenance.log(lab)) if e["task"] == "encryption"), None)
    if last:
        yield str(last["outcome"]).startswith("not encrypted"), f"disk {last['outcome']}"
