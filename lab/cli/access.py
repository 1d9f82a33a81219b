"""access: what devices are given, whether they get in, and keeping a changed sshd (client, probe, confirm)."""

from __future__ import annotations

import argparse
import json

from lab.app import access, doctor
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.cli.doctor import line


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab access`."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    one = verbs.add_parser("client", help="print the ~/.ssh/config a device needs")
    one.add_argument("device", nargs="?", default="")
    one.add_argument("--identity", default="", help="the device's private key file")
    one = verbs.add_parser("confirm", help="keep the changed sshd; run it in a fresh ssh session")
    one.add_argument("--here", action="store_true", help="not from ssh: you sit at the machine")
    one = verbs.add_parser("probe", help="log in a few times and say how often and how fast it worked")
    one.add_argument("-n", type=int, default=10, help="how often (default 10)")
    _arguments.as_json(one)
    verbs.add_parser("doctor", help="the same as `lab doctor access`")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Does what was asked and prints what came of it."""
    if args.what == "client":
        print(access.client(lab, args.device, args.identity), end="")
        return 0
    if args.what == "confirm":
        print(access.confirm(lab, args.here))
        return 0
    if args.what == "doctor":
        links = doctor.doctor(lab, "access")["access"]
        print("\n".join(line(x) for x in links))
        return 1 if any(x.wrong for x in links) else 0
    found = access.probe(lab, args.n)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0 if found["rate"] == 1 else 1
    if found["p50"] is None:
        print(f"0 of {found['tried']} logins worked: {found['why']}. Run `lab doctor access`.")
        return 1
    quick, slow = found["p50"] * 1000, found["p95"] * 1000
    print(
        f"{found['rate']:.1%} of {found['tried']} logins worked; half within {quick:.0f} ms, 95 % within {slow:.0f} ms."
    )
    if found["first"]:
        first, again = found["first"] * 1000, found["reused"] * 1000
        print(f"A first connection takes {first:.0f} ms, one that shares it {again:.0f} ms.")
    total, rate = access.rate(lab)
    print(f"Of all {total} probes so far {rate:.1%} got in.")
    return 0 if found["rate"] == 1 else 1
