"""registry: the models that runs registered: versions, aliases, stages, and a card of each.

lab registry                     every version: aliases, stage, who approved it, the run it is from
lab registry show NAME           the card of the newest version; NAME@2, NAME@production for another
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lab.app import registry
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.core.problem import problem
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab registry`."""
    parser.add_argument("verb", nargs="?", choices=("list", "show"), default="list")
    parser.add_argument("name", nargs="?", default="", help="a registered model; `show` takes NAME@VERSION too")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the versions, or a card as Markdown."""
    if args.verb == "show":
        if not args.name:
            raise problem("which model's card?", do="name it: `lab registry show NAME`; see `lab registry`")
        card = registry.card(lab, args.name)
        print(json.dumps(asdict(card), indent=1, ensure_ascii=False) if args.json else registry.markdown(card))
        return 0
    found = registry.versions(lab, args.name)
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for one in found:
        words = [*(a for a in one["aliases"] if a != one["stage"]), one["stage"]]
        words += [f"approved by {one['approved']}"] if one["approved"] else []
        print(f"{one['name']}@{one['version']}  {size(one['bytes'])}  {one['run']}  {' '.join(words)}".rstrip())
    if not found:
        print("No run registered a model yet: declare `register: {name: NAME}` in an experiment, and apply.")
    return 0
