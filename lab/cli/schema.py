"""schema: prints the JSON schema of a kind, or writes all of them for editors.

Files of conf/ begin with `# yaml-language-server: $schema=../.schema/KIND.json`; editors with a YAML language server
then complete keys, show their meaning and mark mistakes. Run `lab schema --write` after an update of Lab.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lab.app.schema import schema, write
from lab.core.problem import problem

ALONE = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab schema`."""
    parser.add_argument("kind", nargs="?", help="a kind, or lab, profile, stage or host; without it, all are listed")
    parser.add_argument("--write", action="store_true", help="write all of them under conf/.schema/")


def main(args: argparse.Namespace) -> int:
    """Prints or writes."""
    from lab.declare import schema as schemas

    if args.write:
        root = Path(args.folder)
        if not (root / "conf").is_dir():
            raise problem(f"{root.absolute()} is no lab", why="it has no conf/", do="give the lab's folder with -C")
        changed = write(root)
        print(
            f"{len(changed)} schemas written to {root / 'conf' / '.schema'}." if changed else "All schemas are current."
        )
    elif args.kind:
        print(schemas.text(schema(args.kind)), end="")
    else:
        for name, found in schemas.schemas().items():
            print(f"  {name:<14} {found['description']}")
        print("Run `lab schema KIND` to see one, `lab schema --write` to give them to your editor.")
    return 0
