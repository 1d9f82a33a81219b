"""backup: snapshots made, listed, checked, thinned and tried, as the applied declaration says."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lab.adapters.repository import Tool, repository
from lab.adapters.secrets import resolve
from lab.app import _snapshot
from lab.app._lines import add, applied, lines
from lab.app._saved import gather
from lab.app.lab import Lab
from lab.core import stages
from lab.core.problem import Problem, Problems, did_you_mean, problem
from lab.core.schedule import period

READ_PARTS = 10
"""A weekly check reads this fraction of all data, another one each time: a flipped bit is found by reading only."""


def names(lab: Lab) -> list[str]:
    """The backups that have been applied."""
    return sorted(p.stem for p in (lab.state / "backup").glob("*.json"))


def settings(lab: Lab, name: str = "") -> tuple[str, dict[str, Any]]:
    """(name, what was applied) of a backup; of the only one where none is named."""
    known = names(lab)
    if not name and len(known) == 1:
        name = known[0]
    if name not in known:
        what = f"no backup `{name}` is applied{did_you_mean(name, known)}" if name else "name a backup"
        raise problem(what, why=f"there are: {', '.join(known) or 'none'}", do="see `lab status`; `lab apply` makes it")
    return name, applied(lab.state / "backup" / f"{name}.json", "repos", "password", "alert", "keep")


def repositories(applied: Mapping[str, Any]) -> list[Tool]:
    """Every repository of a backup, the first one first."""
    deadline = time.monotonic() + applied["hours"] * 3600 if applied["hours"] else 0.0
    return [
        repository(
            applied.get("tool", "restic"), r, lambda: resolve(applied["password"]),
            limit=applied["upload"], deadline=deadline, index=applied.get("index", ""),
        )
        for r in applied["repos"]
    ]  # fmt: skip


def now(lab: Lab, name: str = "", scheduled: bool = False) -> list[dict[str, Any]]:
    """One new snapshot in each repository; says of each what was added. Then thins them as `keep` says.

    Where one repository fails the others are still filled, and the problem is raised at the end.
    """
    name, applied = settings(lab, name)
    stage = lab.work(f"backup.{name}")
    staged = lab.state / "staged" / name
    saved = gather(lab, name, applied, staged)
    told: list[dict[str, Any]] = []
    failed: list[Problem] = []
    try:
        for place in repositories(applied):
            begun = time.time()
            try:
                after = _after(place.snapshots(f"backup:{name}"))
                summary = place.backup(saved.paths, saved.excludes, _tags(lab, name), stage.progress, after)
                place.forget(applied["keep"], f"backup:{name}")
            except Problems as e:
                failed += e.problems
                note(lab, name, "failed", repo=place.repo, why=e.problems[0].summary)
                continue
            entry = {
                "repo": place.repo, "snapshot": summary["snapshot_id"], "seconds": round(time.time() - begun, 2),
                "files": summary.get("total_files_processed", 0), "added": summary.get("data_added", 0),
                "bytes": summary.get("total_bytes_processed", 0), "left": len(saved.manifest["left"]),
                "unread": summary["unread"],
            }  # fmt: skip
            note(lab, name, "snapshot", **entry)
            told.append(entry)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if failed:
        raise Problems(*failed)
    if scheduled:
        upkeep(lab, name, applied)
    return told


def _after(known: Sequence[dict[str, Any]]) -> datetime | None:
    """A second after the newest snapshot, where the clock was set back behind it: the last one made stays the newest.

    Else `keep` would drop it, and a restore would take the one before.
    """
    last = _snapshot.made(known[-1]) if known else None
    return last + timedelta(seconds=1) if last and last >= datetime.now().astimezone() else None


def upkeep(lab: Lab, name: str, applied: Mapping[str, Any]) -> None:
    """What is due besides the snapshot: a weekly check that reads part of the data, and the restore drill."""
    if age(lab, name, "check") > period("weekly"):
        count = sum(e["what"] == "check" for e in log(lab, name))
        check(lab, name, f"{count % READ_PARTS + 1}/{READ_PARTS}")
    if applied["drill"] and age(lab, name, "drill") > period(applied["drill"]):
        drill(lab, name)


def snapshots(lab: Lab, name: str = "") -> list[dict[str, Any]]:
    """Every snapshot of a backup's first repository: `{id, time, paths}`, oldest first."""
    name, applied = settings(lab, name)
    found = repositories(applied)[0].snapshots(f"backup:{name}")
    return [{"id": s["short_id"], "time": s["time"], "paths": s["paths"]} for s in found]


def check(lab: Lab, name: str = "", subset: str = "") -> list[str]:
    """Every repository is sound; with `subset` (`100%`, `2/10`) that part of the data has been read."""
    name, applied = settings(lab, name)
    for place in repositories(applied):
        place.check(subset)
        note(lab, name, "check", repo=place.repo, subset=subset)
    return list(applied["repos"])


def unlock(lab: Lab, name: str = "") -> None:
    """Locks that dead processes left behind are gone."""
    name, applied = settings(lab, name)
    for place in repositories(applied):
        place.unlock()


def drill(lab: Lab, name: str = "") -> dict[str, Any]:
    """The newest snapshot of each repository, really restored into a scratch folder and compared."""
    name, applied = settings(lab, name)
    begun, files = time.time(), 0
    for place in repositories(applied):
        scratch = lab.state / "backup" / "drill" / name
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            restored = _snapshot.fetch(name, place, scratch, "")
            wrong = restored.wrong()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if wrong:
            note(lab, name, "drill failed", repo=place.repo, why=wrong[0])
            raise problem(
                f"the restore drill of {name} failed", why="; ".join(wrong[:5]), do="run `lab backup check --read-data`"
            )
        files += len(restored.manifest["files"]) + len(restored.manifest["databases"])
        note(lab, name, "drill", repo=place.repo, files=files, seconds=round(time.time() - begun, 2))
    return {"backup": name, "files": files, "seconds": round(time.time() - begun, 2)}


def status(lab: Lab) -> list[dict[str, Any]]:
    """Of each applied backup: `{backup, snapshot, check, drill, late}`, ages in seconds, None for never."""
    out = []
    for name in names(lab):
        _, applied = settings(lab, name)
        ages: dict[str, Any] = {
            w: a if (a := age(lab, name, w)) < 1e9 else None for w in ("snapshot", "check", "drill")
        }
        late = ages["snapshot"] is None or ages["snapshot"] > applied["alert"] * 86400
        out.append({"backup": name, **ages, "late": late})
    return out


def age(lab: Lab, name: str, what: str) -> float:
    """Seconds since something last went well; endless where it never did. A clock set back counts as just now."""
    times = [e["at"] for e in log(lab, name) if e["what"] == what]
    return max(0.0, time.time() - times[-1]) if times else float("inf")


def log(lab: Lab, name: str) -> list[dict[str, Any]]:
    """What was done for a backup, in order."""
    return lines(lab.state / "backup" / f"{name}.log", what=str, at=float)


def note(lab: Lab, name: str, what: str, **more: Any) -> None:
    """One line more in a backup's log."""
    add(lab.state / "backup" / f"{name}.log", at=time.time(), what=what, **more)


def _tags(lab: Lab, name: str) -> Sequence[str]:
    return (f"backup:{name}", f"lab:{stages.short(lab.head['lab'])}")
