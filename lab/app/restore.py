"""restore: what a snapshot holds, back in its place or beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.adapters.restic import Repository
from lab.app import backup as backups
from lab.app.lab import Lab
from lab.core.problem import Problems, problem


@dataclass
class Restored:
    """A snapshot's content below a scratch folder."""

    below: Path
    manifest: dict[str, Any]
    snapshot: str
    pairs: dict[str, Path] = field(default_factory=dict)
    """Where each file belongs → where it lies now."""

    def wrong(self) -> list[str]:
        """What is missing, has another size, or is no sound database."""
        out = []
        for path, (size, mtime) in self.manifest["files"].items():
            at = self.pairs.get(path)
            if at is None:
                out.append(f"{path} is missing")
            elif at.stat().st_mtime_ns == mtime and at.stat().st_size != size:
                out.append(f"{path} has {at.stat().st_size} bytes, not {size}")
        for path in self.manifest["databases"]:
            at = self.pairs.get(path)
            if at is None or not _sound(at):
                out.append(f"{path} is no sound database")
        return out


def _sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def restore(
    lab: Lab, addresses: Sequence[str] = (), *, at: str = "", to: Path | None = None, name: str = "", repo: str = ""
) -> dict[str, Any]:
    """A snapshot's files are in their places again, or below `to`; with addresses only what belongs to those.

    `at` is a snapshot's id or a time (`2026-11-20`, `2026-11-20T18:30`): the last snapshot before its end is taken.
    Files that the snapshot does not hold stay. Says `{snapshot, at, files, fetch}`; `fetch` names what is not in the
    snapshot because it can be fetched again: `lab apply` does.
    """
    name, applied = backups.settings(lab, name)
    found = [r for r in backups.repositories(lab, name, applied) if not repo or r.repo == repo]
    scratch = lab.state / "backup" / f"restoring-{name}"
    problems: list[Any] = []
    for repository in found:
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            restored = fetch(lab, name, repository, scratch, at)
            return _place(lab, restored, addresses, to)
        except Problems as e:
            problems += e.problems
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    raise Problems(*problems) if problems else problem(f"{repo} is no repository of {name}", do="see `lab backup list`")


def fetch(lab: Lab, name: str, repository: Repository, scratch: Path, at: str) -> Restored:
    """The snapshot of a time, whole and verified, below a scratch folder."""
    snapshot = choose(repository.snapshots(f"backup:{name}"), at)
    scratch.mkdir(parents=True, mode=0o700)
    repository.restore(snapshot["id"], scratch, progress=lambda: None)
    manifest = backups.manifest_below(scratch)
    restored = Restored(scratch, json.loads(manifest.read_text()), snapshot["short_id"])
    staged = manifest.parent
    for path, copy in restored.manifest["databases"].items():
        lies = staged / "databases" / path.lstrip("/")
        if lies.exists():
            restored.pairs[path] = lies
        del copy
    for folder, _, names in os.walk(scratch):
        if Path(folder).is_relative_to(staged):
            continue
        for each in names:
            lies = Path(folder) / each
            restored.pairs["/" + str(lies.relative_to(scratch))] = lies
    return restored


def choose(found: Sequence[dict[str, Any]], at: str) -> dict[str, Any]:
    """The snapshot an id or a time means; the newest where neither is given."""
    if not found:
        raise problem("there is no snapshot yet", do="make one with `lab backup now`")
    if not at:
        return found[-1]
    for snapshot in found:
        if snapshot["id"].startswith(at) and len(at) >= 4 and not at.startswith("20"):
            return snapshot
    try:
        end = datetime.fromisoformat(f"{at}T23:59:59" if len(at) == 10 else at).astimezone()
    except ValueError as e:
        raise problem(f"`{at}` is neither a time nor a snapshot", do="see `lab backup list`") from e
    before = [s for s in found if _time(s) <= end]
    if not before:
        raise problem(
            f"no snapshot is as old as {at}",
            why=f"the oldest is of {found[0]['time'][:16]}",
            do="see `lab backup list`",
        )
    return before[-1]


def _time(snapshot: dict[str, Any]) -> datetime:
    # restic writes nanoseconds, of which Python reads six digits.
    head, _, rest = snapshot["time"].partition(".")
    zone = rest[rest.find("+") :] if "+" in rest else rest[rest.find("-") :] if "-" in rest else "+00:00"
    return datetime.fromisoformat(head + zone if rest else head.replace("Z", "+00:00")).astimezone()


def _place(lab: Lab, restored: Restored, addresses: Sequence[str], to: Path | None) -> dict[str, Any]:
    chosen = {p: lies for p, lies in restored.pairs.items() if not addresses or _belongs(restored, p, addresses)}
    if addresses and not chosen:
        raise problem(
            f"the snapshot holds nothing of {', '.join(addresses)}",
            why=f"it is {restored.snapshot}",
            do="try another `--at`",
        )
    old_root = restored.manifest["root"]
    for path, lies in sorted(chosen.items()):
        if to is None:
            target = Path(path)
            if lab.root != Path(old_root) and Path(path).is_relative_to(old_root):
                target = lab.root / Path(path).relative_to(old_root)
        else:
            inside = Path(path).is_relative_to(old_root)
            target = to / (Path(path).relative_to(old_root) if inside else path.lstrip("/"))
        _move(lies, target, path in restored.manifest["databases"])
    left = restored.manifest["left"]
    return {
        "snapshot": restored.snapshot,
        "at": restored.manifest["at"],
        "files": len(chosen),
        "fetch": sorted({v["address"] for v in left.values()}) if not addresses else [],
    }


def _move(lies: Path, target: Path, database: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if database:  # what an older database had not yet merged must not be read into the restored one
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{target}{suffix}").unlink(missing_ok=True)
        beside = target.with_name(f".{target.name[:80]}.lab-restore")
        if lies.is_symlink():
            beside.unlink(missing_ok=True)
            beside.symlink_to(os.readlink(lies))
        else:
            shutil.copy2(lies, beside) if not _same_volume(lies, target.parent) else os.rename(lies, beside)
        os.replace(beside, target)
    except OSError as e:
        raise problem(f"{target} cannot be restored", why=e.strerror or str(e), do="mend that and restore again") from e


def _same_volume(a: Path, b: Path) -> bool:
    return a.stat().st_dev == b.stat().st_dev


def _belongs(restored: Restored, path: str, addresses: Sequence[str]) -> bool:
    root, state = restored.manifest["root"], restored.manifest["state"]
    for address in addresses:
        kind, _, name = address.partition(".")
        if not name:
            tops = [
                f"{root}/{kind}"
                if kind in ("conf", "docs", "recipes")
                else state
                if kind == "state"
                else f"{root}/conf/{kind}"
            ]
        else:
            facts = restored.manifest["resources"].get(address, {}).get("facts", {})
            tops = [str(facts[k]) for k in ("path", "prefix", "folder") if str(facts.get(k, "")).startswith("/")]
            tops += [f"{root}/conf/{kind}/{name}.yaml", f"{root}/conf/lock/{kind}/{name}.yaml"]
            tops += [
                f"{state}/runs/{name}",
                f"{state}/runs/{address}",
                f"{state}/{kind}/{name}",
                f"{state}/sweeps/{name}",
            ]
        if any(path == t or path.startswith(t.rstrip("/") + "/") for t in tops):
            return True
    return False
