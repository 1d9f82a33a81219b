"""state: the ledger: list, show, mv, rm, import, export, history, backup, restore, check, unlock."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lab.adapters.files import put
from lab.app import state
from lab.app.lab import Lab
from lab.core.problem import Problems
from lab.core.units import moment
from lab.ledger import generations


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab state`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=type(parser))
    sub = verbs.add_parser("list", help="every recorded resource")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = verbs.add_parser("show", help="one record")
    sub.add_argument("address")
    sub = verbs.add_parser("mv", help="give a record another address")
    sub.add_argument("old")
    sub.add_argument("new")
    sub = verbs.add_parser("rm", help="forget records; what they describe stays")
    sub.add_argument("addresses", nargs="+", metavar="ADDRESS")
    sub = verbs.add_parser("import", help="take an exported ledger; with addresses, the same as `lab import`")
    sub.add_argument("addresses", nargs="*", metavar="FILE|ADDRESS", help="a file that `lab state export` wrote")
    sub.add_argument("--all", action="store_true", help="adopt everything declared that exists")
    sub = verbs.add_parser("history", help="what happened to a resource, or to all")
    sub.add_argument("address", nargs="?", default="")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = verbs.add_parser("backup", help="copy the ledger")
    sub.add_argument("to", nargs="?", type=Path)
    sub = verbs.add_parser("restore", help="take back the newest sound copy, or the one given")
    sub.add_argument("source", nargs="?", type=Path)
    sub = verbs.add_parser("export", help="the ledger as text, one JSON line per row")
    sub.add_argument("to", nargs="?", type=Path, metavar="FILE", help="instead of printing it")
    verbs.add_parser("check", help="check every page and every checksum")
    verbs.add_parser("unlock", help="remove a lock left by another host")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints what the sub-verb found or did."""
    if args.verb == "list":
        if args.json:
            rows = [{"address": a, "digest": r.digest, "generation": r.generation} for a, r in lab.records.items()]
            print(json.dumps(rows, indent=1))
        else:
            print("\n".join(lab.records) or "Nothing is recorded yet. Run `lab apply`.")
    elif args.verb == "show":
        r = state.record(lab, args.address)
        shown: dict[str, object] = {
            "address": r.address,
            "digest": r.digest,
            "content": r.content,
            "facts": r.facts,
            "inputs": r.inputs,
        }
        shown |= {"declaration": r.declaration, "uses": r.uses, "adopted": r.adopted, "pending": r.pending}
        shown |= {"generation": r.generation, "at": moment(r.at), "profiles": r.profiles.split()}
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    elif args.verb == "mv":
        state.move(lab, args.old, args.new)
        print(f"{args.old} is recorded as {args.new}. Rename its YAML to match, then run `lab plan`.")
    elif args.verb == "rm":
        state.forget(lab, args.addresses)
        print(f"Forgot {', '.join(args.addresses)}; what they describe was left as it is.")
    elif args.verb == "import" and len(args.addresses) == 1 and Path(args.addresses[0]).is_file():
        count, lost = state.take(lab, Path(args.addresses[0]))
        print(f"The ledger holds the {count} records of {args.addresses[0]}.")
        _told(lost)
    elif args.verb == "import":
        from lab.cli import import_

        return import_.main(lab, args)
    elif args.verb == "history":
        rows = generations.history(lab.ledger, address=args.address)
        print(json.dumps(rows, indent=1) if args.json else "\n".join(_row(r) for r in rows) or "Nothing happened yet.")
    elif args.verb == "backup":
        print(f"Copied to {state.backup(lab, args.to)}.")
    elif args.verb == "restore":
        copy, lost = state.restore(lab, args.source)
        print(f"The ledger is {copy} again.")
        _told(lost)
    elif args.verb == "export":
        if args.to is None:
            sys.stdout.writelines(state.export(lab))
        else:
            put(args.to, "".join(state.export(lab)).encode(), mode=0o600)
            print(f"Wrote {args.to}.")
    elif args.verb == "check":
        found = state.check(lab)
        if found:
            raise Problems(*found)
        print(f"The ledger is sound: {len(lab.records)} records, serial {lab.ledger.serial}.")
    else:
        left = state.unlock(lab)
        print(f"Removed the lock of pid {left.get('pid')} on {left.get('host')}." if left else "There was no lock.")
    return 0


def _told(lost: list[str]) -> None:
    if lost:
        print("Recorded since then, and lost: " + ", ".join(lost))
    print("Run `lab plan` to see how the machine differs.")


def _row(r: dict[str, object]) -> str:
    return f"{moment(r['at'])}  generation {r['generation']:<4} {r['action']:<8} {r['address']}  {r['reason']}"
