"""bootstrap: makes a bare machine ready for what the lab declares: git, conda, engines, backup tools.

lab bootstrap --check     only says what is there, what is missing, and the command that gets it
lab bootstrap             installs what the declared resources need, after asking
lab bootstrap --all       and what nothing declared needs yet
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys

from lab.app import bootstrap, tools
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.language import t
from lab.core.problem import problem


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab bootstrap`."""
    parser.add_argument("--check", action="store_true", help="install nothing; 1 where something needed is missing")
    parser.add_argument("--all", action="store_true", help="also what nothing declared needs yet")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    _arguments.as_json(parser)
    _arguments.overrides(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints what is there and what is missing; gets the latter unless only asked to check."""
    found = bootstrap.bootstrap(lab)
    missing = [r.tool for r in found if not r.there and (r.needed or args.all)]
    commands = tools.commands(missing)
    if args.json:
        rows = [{"tool": r.tool.name, "there": r.there, "needed": r.needed} for r in found]
        print(json.dumps({"tools": rows, "commands": [shlex.join(c) for c in commands]}, indent=1))
    else:
        print("\n".join([f"  ✓ python  {platform.python_version()}, {sys.executable}", *map(line, found)]))
        print(*(f"      do  {shlex.join(c)}" for c in commands), sep="\n", end="\n" if commands else "")
    if not missing:
        if not args.json:
            print("This machine has what the lab needs. Run `lab plan`, then `lab apply`.")
        return 0
    if args.check:
        return 1 if any(r.needed and not r.there for r in found) else 0
    if not args.yes:
        if not sys.stdin.isatty():
            raise problem("nobody can be asked here", why="standard input is no terminal", do="add `--yes`")
        if input(t("Do it? [y/N] ")).strip().lower() not in ("y", "yes", "是"):
            print(t("Nothing was changed."))
            return 1
    bootstrap.get(missing)
    print("This machine has what the lab needs. Run `lab plan`, then `lab apply`.")
    return 0


def line(found: bootstrap.Readiness) -> str:
    """One tool: there, missing though needed, or missing and not needed yet. Pure."""
    name, by = found.tool.name, ", ".join(sorted(found.tool.by))
    if found.there:
        return f"  ✓ {name}  {found.there}"
    return f"  ✗ {name}  not installed; {by} needs it" if found.needed else f"  – {name}  not installed; only for {by}"
