"""init: makes a new lab in an empty folder, committed and plannable at once.

lab init mylab                           a starter: one managed file, profiles solo and team
lab init mylab --persona researcher      for a researcher, an app-developer, or a host with guests (host-guests)
lab init mylab --recipe NAME             from a whole-lab recipe, see `lab recipes lab`
lab init mylab --from-machine            also declares what this machine already holds
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from lab.app.init import init

ALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab init`."""
    parser.add_argument("dir", type=Path, help="a folder that is empty or does not exist")
    parser.add_argument("--recipe", default="", metavar="NAME", help="start from a whole-lab recipe")
    parser.add_argument("--persona", default="", metavar="WHO", help="researcher, app-developer or host-guests")
    parser.add_argument("--profile", default="", metavar="NAME", help="which of the recipe's profiles is in force")
    parser.add_argument("--name", default="", help="what the lab is called; else the folder's name")
    parser.add_argument("--from-machine", action="store_true", help="declare the models and envs this machine holds")


def main(args: argparse.Namespace) -> int:
    """Makes it and says what comes next."""
    folder = Path(args.folder) / args.dir
    made = init(
        folder,
        recipe=args.recipe,
        persona=args.persona,
        profile=args.profile,
        name=args.name,
        from_machine=args.from_machine,
    )
    print(
        f"A lab stands in {made.root}: {len(made.files)} files of the recipe `{made.recipe}`, commit {made.commit[:7]}."
    )
    width = max(map(len, made.found), default=0)
    for address, where in made.found.items():
        print(f"  found  {address:<{width}}  {where.removeprefix('found ')}")
    for note in made.notes:
        print(f"  left   {note}")
    there = ["lab", *([] if made.root == Path.cwd() else ["-C", str(folder)])]
    if any(not a.startswith("env.") for a in made.found):
        print(f"Run `{shlex.join([*there, 'import', '--all'])}` to adopt what lies here; nothing is copied.")
    print(f"Run `{shlex.join([*there, 'plan'])}` to see what an apply would do.")
    return 0
