"""gpus: the cards of this host, and of others that share its state: use, memory, temperature, and whose each is."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lab.app.lab import Lab
from lab.app.queue import gpus
from lab.cli import _arguments, _queue


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab gpus`."""
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints one line for each card, and how many are free."""
    found = gpus(lab)
    if args.json:
        print(json.dumps([asdict(h) for h in found], indent=1, ensure_ascii=False))
    else:
        print("\n".join(_queue.pool(found)))
    return 0
