"""recipes: the complete fragments one starts from: labs, envs, models, experiments."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from lab.core.problem import problem
from lab.declare import shipped

ALONE = True
ASIDE = ("lock", "smoke")
"""What stands beside the env templates and is none: their locks, and the smoke tests of frameworks."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab recipes`."""
    parser.add_argument("kind", nargs="?", help="only recipes of this kind")


def main(args: argparse.Namespace) -> int:
    """Prints each recipe with its first line."""
    root = shipped.find("recipes")
    if root is None:
        raise problem("no recipes came with this Lab", do="install it anew")
    for kind in sorted(p for p in root.iterdir() if p.is_dir() and args.kind in (None, p.name)):
        named = {
            p.stem: p for p in sorted(kind.iterdir(), key=Path.is_file) if p.name not in ASIDE and p.suffix != ".py"
        }
        for name, recipe in sorted(named.items()):
            print(f"  {kind.name + '/' + name:<32}  {_first_line(recipe)}")
    print("A lab starts with `lab init DIR --recipe NAME`, anything else with `lab new KIND NAME --from RECIPE`.")
    return 0


def _first_line(path: Path) -> str:
    files = [path] if path.is_file() else [*path.glob("README.md"), *path.glob("*.py"), *sorted(path.rglob("*.yaml"))]
    for file in files[:1]:
        for line in file.read_text(encoding="utf-8").splitlines():
            text = line.lstrip("# ").strip(' "')
            if text and text != "LAB_NAME" and not text.startswith(("yaml-language-server", "-")):
                return textwrap.shorten(text.removeprefix("description: "), 84, placeholder=" …")
    return ""
