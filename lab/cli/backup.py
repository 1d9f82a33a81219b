"""backup: make, list, check, thin and try snapshots (now, list, check, drill, mount, status, unlock)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lab.app import backup
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.units import duration, size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab backup`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for word, text in (
        ("now", "make a snapshot"),
        ("list", "list the snapshots"),
        ("check", "check the repositories"),
        ("drill", "restore into a scratch folder and compare"),
        ("unlock", "remove locks that dead processes left"),
        ("status", "say how old each snapshot, check and drill is"),
        ("mount", "look into the snapshots until interrupted (needs FUSE)"),
    ):
        one = verbs.add_parser(word, help=text)
        if word == "mount":
            one.add_argument("folder", help="an empty folder")
        if word != "status":
            one.add_argument("name", nargs="?", default="", help="which backup; may be left out where there is one")
        if word == "now":
            one.add_argument("--scheduled", action="store_true", help="also check and drill, if they are due")
        if word == "check":
            one.add_argument(
                "--read-data", nargs="?", const="100%", default="", metavar="PART", help="read data: 100%%, 1/10"
            )
        _arguments.as_json(one)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Does what was asked and prints what came of it."""
    if args.what == "now":
        found: Any = backup.now(lab, args.name, args.scheduled)
        text = "\n".join(made(e) for e in found)
    elif args.what == "list":
        found = backup.snapshots(lab, args.name)
        text = "\n".join(f"{s['id']}  {s['time'][:19].replace('T', ' ')}  {len(s['paths'])} paths" for s in found)
        text = text or "No snapshot yet. Make one with `lab backup now`."
    elif args.what == "check":
        found = backup.check(lab, args.name, args.read_data)
        text = "\n".join(f"{r} is sound{', its data read' if args.read_data else ''}" for r in found)
    elif args.what == "drill":
        found = backup.drill(lab, args.name)
        text = f"{found['files']} files restored and compared in {duration(found['seconds'])}"
    elif args.what == "status":
        found = backup.status(lab)
        text = "\n".join(ages(s) for s in found) or "No backup is applied."
    elif args.what == "unlock":
        backup.unlock(lab, args.name)
        found, text = None, "No lock of a dead process is left."
    else:
        Path(args.folder).mkdir(parents=True, exist_ok=True)
        _, applied = backup.settings(lab, args.name)
        backup.repositories(applied)[0].mount(args.folder)
        return 0
    print(json.dumps(found, indent=1) if args.json else text)
    return 1 if args.what == "status" and any(s["late"] for s in found) else 0


def made(entry: dict[str, Any]) -> str:
    """One line about a new snapshot."""
    left = f", {entry['left']} large files by source and hash" if entry["left"] else ""
    unread = f", {len(entry['unread'])} could not be read: {entry['unread'][0]}" if entry["unread"] else ""
    return (
        f"snapshot {entry['snapshot'][:8]}  {entry['files']} files, {size(entry['bytes'])} "
        f"({size(entry['added'])} new) in {duration(entry['seconds'])}{left}{unread}  {entry['repo']}"
    )


def ages(s: dict[str, Any]) -> str:
    """One line about a backup's ages."""
    told = ", ".join(
        f"{w} {'never' if s[w] is None else duration(s[w]) + ' ago'}" for w in ("snapshot", "check", "drill")
    )
    return f"{'!' if s['late'] else ' '} {s['backup']}  {told}"
