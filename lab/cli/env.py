"""env: run in environments, list, compare and export them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from lab.app import env
from lab.app.lab import Lab
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab env`."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    one = verbs.add_parser("run", help="run a command closed in an env: lab env run NAME -- CMD …")
    one.add_argument("name")
    one.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    verbs.add_parser("shell", help="an interactive shell in an env").add_argument("name")
    one = verbs.add_parser("export", help="the lock in another tool's format")
    one.add_argument("name")
    one.add_argument(
        "--format", default="conda-lock", help="conda-lock, explicit, environment.yml, requirements, pylock, pixi"
    )
    one.add_argument("--platform", default="", help="linux-64, osx-arm64, …; this host's by default")
    one.add_argument("--out", metavar="FILE", help="write it there instead of printing it")
    one = verbs.add_parser("update", help="relock an env so that packages may move to newer versions that still fit")
    one.add_argument("name")
    one.add_argument("packages", nargs="*", metavar="PACKAGE", help="these only; all by default")
    one = verbs.add_parser("diff", help="packages that differ between two envs")
    one.add_argument("a")
    one.add_argument("b")
    one.add_argument("--platform", default="")
    _arguments.as_json(one)
    _arguments.as_json(verbs.add_parser("list", help="every env and its state"))
    one = verbs.add_parser("page", help="an env's page: packages, size, lock")
    one.add_argument("name")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Does what is asked; `run` exits with the command's own status."""
    if args.what == "run":
        command = args.command[1:] if args.command[:1] == ["--"] else args.command
        return env.run(lab, args.name, command or env.shell_command(lab, args.name), replace=True)
    if args.what == "shell":
        return env.run(lab, args.name, env.shell_command(lab, args.name), replace=True)
    if args.what == "export":
        text = env.export(lab, args.name, args.format, args.platform)
        if args.out:
            Path(args.out).write_text(text)
        else:
            sys.stdout.write(text)
        return 0
    if args.what == "update":
        moved = env.update(lab, args.name, args.packages)
        print("\n".join(f"  {line}" for line in moved) or "Nothing newer fits.")
        return 0
    if args.what == "diff":
        found = env.diff(lab, args.a, args.b, args.platform)
        if args.json:
            print(json.dumps([{"package": n, args.a: a, args.b: b} for n, a, b in found], indent=1))
        else:
            width = max((len(n) for n, _, _ in found), default=0)
            print(
                "\n".join(f"  {n:<{width}}  {a or '–'} → {b or '–'}" for n, a, b in found)
                or "They hold the same packages."
            )
        return 0
    if args.what == "page":
        sys.stdout.write(env.page(lab, args.name))
        return 0
    lines = env.listing(lab)
    if args.json:
        print(json.dumps([asdict(line) for line in lines], indent=1, ensure_ascii=False))
        return 0
    width = max((len(line.name) for line in lines), default=0)
    for line in lines:
        held = f"{line.packages:>4} packages  {line.size:>9}"
        print(f"  {line.name:<{width}}  {held}  {line.state}  {line.description}".rstrip())
    return 0
