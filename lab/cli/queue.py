"""queue: what runs and what waits for memory or cards, by turns, and what the quotas leave."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict

from lab.app.lab import Lab
from lab.app.queue import queue, used
from lab.cli import _arguments, _queue
from lab.core.quotas import Use


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab queue`."""
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints one line for each job, and why it waits."""
    jobs, quotas = queue(lab), used(lab)
    if args.json:
        found = {"jobs": [asdict(j) for j in jobs], "quotas": [_plain(u) for u in quotas]}
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    print("\n".join([*_queue.table(jobs, time.time()), *_queue.quotas(quotas)]))
    return 0


def _plain(one: Use) -> dict[str, object]:
    quota = one.quota.model_dump(exclude_none=True)
    return {"account": one.account, "quota": quota, "gpu_hours": one.hours, "resets": one.resets.isoformat()}
