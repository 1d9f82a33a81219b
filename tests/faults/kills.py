"""Kills at random, for so many minutes: `python -m tests.faults.kills MINUTES [SEED]`.

The labs: files, a model and a dataset; one of every kind in one lab; five hundred files in chains and fans. Each is
made, or changed, and stopped anywhere by SIGKILL, by half a write or by an error of the system; then everything that
`campaign.py` asks is asked. Exits with 1 where anything was lost.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import labs
from tests.faults.campaign import Campaign, Deed
from tests.faults.zygote import Zygote

FAULTS = ("kill", "kill", "kill", "tear", "ENOSPC", "EIO", "EROFS", "EMFILE", "short")


def deeds(top: Path) -> Iterator[Deed]:
    """What is interrupted."""
    from tests.models import make

    source = top / "source/tiny"
    make.safetensors(source)
    (top / "source/rows").mkdir()
    (top / "source/rows/train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    yield from labs.deeds(source).values()
    yield labs.many(500)
    heavy = labs.bench(top / "bench")
    whole, env = dict[str, str](), dict[str, str]()
    for kind, deed in heavy.items():
        if kind != "backup" or shutil.which("restic"):
            whole |= deed.after
            env |= deed.env
    yield Deed("every kind", {}, {**labs.files(source), **whole}, env=env)


def main(minutes: float, seed: int) -> int:
    """Until the time is over; the report, deed by deed."""
    dice = random.Random(seed)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    top = Path(tempfile.mkdtemp(prefix="lab-kills-", dir=memory))
    zygote = Zygote(top / "zygote")
    try:
        found = list(deeds(top))
        for deed in found:
            os.environ.update(deed.env)
        campaigns = [Campaign(top / deed.name.replace(" ", "-"), deed, zygote) for deed in found]
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            campaign = dice.choice(campaigns)
            at, how = dice.randint(1, campaign.boundaries), dice.choice(FAULTS)
            if how in ("kill", "tear"):
                campaign.kill(at, how)
            elif campaign.line(at)["at"] not in ("step", "stepped", "spawn", "spawned"):
                campaign.fail(at, how, lasting=dice.random() < 0.5)
        for campaign in campaigns:
            print(campaign.report)
        lost = sum(len(c.report.lost) for c in campaigns)
        injected, survived = (sum(getattr(c.report, n) for c in campaigns) for n in ("injected", "survived"))
        boundaries = sum(c.boundaries for c in campaigns)
        print(f"in all: {boundaries} boundaries, {injected} faults, {survived} survived, {lost} lost (seed {seed})")
        return int(bool(lost))
    finally:
        zygote.close()
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(float(words[0]), int(words[1]) if len(words) > 1 else random.randrange(1 << 30)))
