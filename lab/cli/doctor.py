"""doctor: walk what the lab stands on (host, access, backup, guest), and name the broken link and its remedy."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lab.app.doctor import Link, doctor
from lab.app.lab import Lab
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab doctor`."""
    parser.add_argument(
        "topic", nargs="?", default="", help="host, access, backup or guest; all that is declared by default"
    )
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints each link; 1 where one is broken."""
    found = doctor(lab, args.topic)
    if args.json:
        print(json.dumps({k: [asdict(x) for x in v] for k, v in found.items()}, indent=1))
    else:
        print("\n".join(f"{topic}\n" + "\n".join(line(x) for x in links) for topic, links in found.items()))
    return 1 if any(x.wrong for links in found.values() for x in links) else 0


def line(link: Link) -> str:
    """One link, and beneath it the remedy of a broken one."""
    if not link.wrong:
        return f"  ✓ {link.name}" + (f"  {link.note}" if link.note else "")
    return f"  ✗ {link.name}  {link.wrong}\n      do  {link.do}"
