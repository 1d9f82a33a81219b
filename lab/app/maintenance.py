"""maintenance: what is due, what was done, and what would free space."""

from __future__ import annotations

import shutil
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

from lab.adapters import upkeep
from lab.app import backup
from lab.app._lines import add, applied, lines
from lab.app.lab import Lab
from lab.core.calendar import due as periods
from lab.core.problem import Problem, Problems, Unknown, did_you_mean, problem
from lab.core.units import size


def settings(lab: Lab) -> dict[str, Any]:
    """What was applied; a Problem where nothing was."""
    path = lab.state / "maintenance" / "settings.json"
    if not path.exists():
        raise problem("no maintenance is applied", do="write conf/maintenance/host.yaml, then `lab apply`")
    return applied(path, "tasks", "updates", "free")


def due(lab: Lab, today: date | None = None) -> list[dict[str, Any]]:
    """What was not done in its period: `{task, every, last, behind}`, the most behind first."""
    today = today or date.today()
    done = {e["task"]: date.fromtimestamp(e["at"]) for e in log(lab)}
    found = [
        {"task": t, "every": e, "last": str(done[t]) if t in done else None, "behind": periods(e, done.get(t), today)}
        for t, e in settings(lab)["tasks"].items()
    ]
    return sorted((f for f in found if f["behind"]), key=lambda f: (-int(str(f["behind"])), str(f["task"])))


def run(lab: Lab, task: str = "", check: bool = False) -> list[dict[str, Any]]:
    """One task, or each that is due and that Lab can do itself: `{task, outcome}`; noted unless `check`."""
    applied = settings(lab)
    doers = DOERS
    if task and task not in applied["tasks"] and task not in doers:
        known = {*applied["tasks"], *doers}
        raise problem(f"no task is called `{task}`{did_you_mean(task, known)}", do="see `lab maintenance due`")
    if task and task not in doers:
        note(lab, task, "done by hand")
        return [{"task": task, "outcome": "noted as done today"}]
    chosen = [task] if task else [d["task"] for d in due(lab) if d["task"] in doers]
    out: list[dict[str, Any]] = []
    failed: list[Problem] = []
    for each in chosen:
        try:
            outcome = doers[each](lab, applied, check)
        except Problems as e:
            failed += e.problems
            continue
        except Unknown as e:
            outcome = f"not known: {e}"
        if not check:
            note(lab, each, outcome)
        out.append({"task": each, "outcome": outcome})
    if failed:
        raise Problems(*failed)
    return out


def updates(lab: Lab, applied: dict[str, Any], check: bool) -> str:
    """What could be newer, or what was installed."""
    if applied["updates"] == "off":
        return "switched off"
    waiting = upkeep.upgradable(applied["held"])
    if check or applied["updates"] == "report" or not waiting:
        names = ", ".join(f"{p['name']} {p['to']}" for p in waiting)
        return f"{len(waiting)} could be newer" + (f": {names}" if names else "")
    return upkeep.install(applied["held"])


def encryption(lab: Lab, applied: dict[str, Any], check: bool) -> str:
    """Whether the system's disk is encrypted; a Problem where it must be and is not."""
    if applied["encryption"] == "off":
        return "not asked for"
    found = upkeep.encryption()
    if not found["encrypted"] and applied["encryption"] == "required":
        raise problem(f"the disk is not encrypted by {found['by']}", why="it is declared as required", do=found["do"])
    return f"encrypted by {found['by']}" if found["encrypted"] else f"not encrypted by {found['by']}: {found['do']}"


def logs(lab: Lab, applied: dict[str, Any], check: bool) -> str:
    """Which logs were packed."""
    if check:
        return "would pack what is too large"
    packed = upkeep.rotate(lab.state / "log", applied["logs"]["size"], applied["logs"]["keep"])
    return f"{len(packed)} packed"


def backup_check(lab: Lab, applied: dict[str, Any], check: bool) -> str:
    """Every backup's repository is sound, and a tenth of its data was read."""
    names = backup.names(lab)
    for name in [] if check else names:
        backup.check(lab, name, "1/10")
    return f"{len(names)} checked" if names else "no backup is applied"


def disk(lab: Lab, applied: dict[str, Any], check: bool) -> str:
    """Free space, and what would give more; too little of it, and `clean: take`, and that is taken."""
    place, free = room(lab)
    text = f"{size(free)} free at {place}"
    if free >= applied["free"] and not check:
        return text
    if applied.get("clean") == "take" and not check:
        return f"{text}; freed {size(_take(lab, applied))}, {size(room(lab)[1])} free now"
    return text + "".join(f"; {size(s['bytes'])} by `{s['do']}`" for s in suggestions(lab))


def room(lab: Lab) -> tuple[Path, int]:
    """The place with the least room among `state/` and the store, and the bytes free there. Reads."""
    places = [p if p.exists() else lab.root for p in (lab.state, lab.store)]
    return min(((p, shutil.disk_usage(p).free) for p in places), key=lambda x: x[1])


def _take(lab: Lab, applied: dict[str, Any]) -> int:
    """What nothing needs is gone: unneeded blobs and views, Lab's own cache, logs packed; how many bytes of them."""
    from lab.app import gc

    freed = gc.gc(lab, gc.find(lab)).bytes
    cache = lab.state / "cache"
    before = _bytes(cache)
    shutil.rmtree(cache, ignore_errors=True)
    upkeep.rotate(lab.state / "log", applied["logs"]["size"], applied["logs"]["keep"])
    return int(freed) + before


DOERS = {"updates": updates, "disk": disk, "encryption": encryption, "logs": logs, "backup check": backup_check}
"""Task → what does it; every other task is a reminder."""


def suggestions(lab: Lab) -> list[dict[str, Any]]:
    """What may be freed: `{what, bytes, do}`, the most first; each with one command that takes it."""
    from lab.app import gc

    out = [{"what": "blobs and views that nothing needs", "bytes": gc.find(lab).bytes, "do": "lab gc --yes"}]
    for what, place, do in (
        ("Lab's own cache", lab.state / "cache", f"rm -r {lab.state / 'cache'}"),
        ("logs", lab.state / "log", "lab maintenance run logs"),
        ("pip's cache", Path.home() / ".cache/pip", "pip cache purge"),
        ("uv's cache", Path.home() / ".cache/uv", "uv cache prune"),
        ("restic's cache", Path.home() / ".cache/restic", "restic cache --cleanup"),
    ):
        if place.is_dir():
            out.append({"what": what, "bytes": _bytes(place), "do": do})
    return sorted((s for s in out if int(str(s["bytes"]))), key=lambda s: -int(str(s["bytes"])))


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except OSError:
            continue
        total += stat.st_blocks * 512
    return total


def log(lab: Lab) -> list[dict[str, Any]]:
    """What was done, in order."""
    return lines(lab.state / "maintenance" / "log.jsonl", task=str, at=float)


def note(lab: Lab, task: str, outcome: str) -> None:
    """One line more in the log of what was done."""
    add(lab.state / "maintenance" / "log.jsonl", at=time.time(), task=task, outcome=outcome)


def parse_day(text: str) -> date:
    """`2030-01-01` as a day; a Problem where it is none."""
    try:
        return datetime.fromisoformat(text).date()
    except ValueError as e:
        raise problem(f"`{text}` is no day", do="write it as 2030-01-31") from e
