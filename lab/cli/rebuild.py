"""rebuild: the same lab on an empty machine, from its repository and a backup, or from a bundle with the network off.

lab rebuild --from git@host:lab.git --into lab        repository, locks and the declared backup
lab rebuild --from /Volumes/usb/lab.tar --into lab    a bundle of `lab bundle`; nothing else is asked
lab rebuild --from … --into lab                       once more after a kill: it goes on where it was

Every byte is read again and compared with what the lab before had recorded. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from lab.app._takeover import REPORT
from lab.app.rebuild import rebuild
from lab.cli import _applying, _arguments
from lab.cli._progress import Progress

ALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab rebuild`."""
    _arguments.overrides(parser)
    parser.add_argument("--from", dest="source", required=True, metavar="REPO", help="a git repository, or a bundle")
    parser.add_argument("--into", metavar="DIR", help="an empty folder; else one named as the repository")
    parser.add_argument("--backup", default="", metavar="NAME", help="which declared backup; the only one by default")
    parser.add_argument(
        "--repo", default="", help="which of its repositories, or where one is now; else the first that works"
    )
    parser.add_argument("--at", default="", metavar="TIME", help="the last snapshot before a time; else the newest")
    parser.add_argument("--without-backup", action="store_true", help="begin with an empty ledger")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask before applying")
    _arguments.as_json(parser)


def main(args: argparse.Namespace) -> int:
    """Rebuilds, and prints what the attestation says."""
    if args.folder != ".":
        os.chdir(args.folder)
    with _applying.interruptible() as started:
        done = rebuild(
            args.source,
            Path(args.into) if args.into else None,
            overrides=args.overrides,
            name=args.backup,
            repo=args.repo,
            at=args.at,
            without_backup=args.without_backup,
            tell=Progress(sys.stderr, quiet=args.quiet),
            approve=_applying.approver(args.yes, quiet=args.quiet or args.json),
            started=started,
        )
    if done is None:
        print("Nothing was applied. The same command goes on from here.")
        return 1
    lab, found = done
    if args.json:
        print(json.dumps(found.to_json(), indent=1))
        return 0 if found.equal else 1
    for one in found.resources:
        if one.verdict != "identical" or args.verbose:
            sign = {"identical": "✓", "new": "+"}.get(one.verdict, "✗")
            print(f"  {sign} {one.address:<32}  {one.verdict}{f': {one.why}' if one.why else ''}")
    for note in found.notes:
        print(f"    note  {note}")
    whole = len(found.resources)
    share = f" ({100 * found.identical / whole:.0f} %)" if whole else ""
    print(f"{found.identical} of {whole} resources are bit for bit what they were{share}.")
    print(f"The attestation is in {lab.state / REPORT}. Run `lab -C {lab.root} status` to look around.")
    return 0 if found.equal else 1
