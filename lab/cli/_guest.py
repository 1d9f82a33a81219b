"""`lab` as a guest has it: asks the broker, and shows the guest's own runs. Standard library only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lab.adapters import peer
from lab.cli._runs import details, ended, table
from lab.core.guest_files import SOCKET
from lab.core.problem import Problems, problem
from lab.runs import guest
from lab.runs.folder import ACTIVE, RunFolder
from lab.runs.listing import find, line, listed
from lab.runs.run import Handle, again


def main(words: Sequence[str]) -> int:
    """One command; its exit code."""
    try:
        told = peer.ask(Path(SOCKET), {"words": list(words)})
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise problem("the lab does not answer", why=why, do="try again; if it stays so, tell its owner") from e
    if told.get("err"):
        print(told["err"], file=sys.stderr)
    if told.get("out"):
        print(told["out"])
    if told.get("run"):
        return _follow(str(told["run"])) if told.get("follow") else _begun(str(told["run"]))
    if told.get("local"):
        return _own(words[1:] if words[0] == "guest" else words)
    return int(told.get("code", 0))


def _own(words: Sequence[str]) -> int:
    """Runs of this account: `runs [EXPERIMENT]`, `show RUN`, `logs RUN [-f]`, `stop RUN`, `resume RUN`."""
    verb, names = words[0], [w for w in words[1:] if not w.startswith("-")]
    if verb == "runs":
        print(table(listed(guest.state(), names[0] if names else "", (), "-started", 0)))
        return 0
    if len(names) != 1:
        raise problem(f"`lab {verb}` takes one run", do="see `lab runs`")
    run = find(guest.state(), names[0])
    if verb == "show":
        print(details(line(run)))
    elif verb == "stop":
        handle = Handle(run)
        handle.stop()
        handle.wait(15)
        print(ended(line(run)))
    elif verb == "resume":
        again(run)
        return _follow(run.id)
    elif {"-f", "--follow"} & set(words):
        return _follow(run.id)
    else:
        _print(run, 0)
    return 0


def _begun(name: str) -> int:
    print(f"{name} runs. See `lab logs {name} -f`, `lab stop {name}`.")
    return 0


def _follow(name: str) -> int:
    """What a run prints, until it has ended; Ctrl-C ends it."""
    run, at = guest.folder(name), 0
    try:
        while True:
            over = run.state() not in ACTIVE
            at = _print(run, at)
            if over:
                break
            time.sleep(0.1)
    except KeyboardInterrupt:
        Handle(run).stop()
        Handle(run).wait(15)
        print(ended(line(run)))
        return 130
    one = line(run)
    print(ended(one))
    return 0 if one.state == "finished" else 1


def _print(run: RunFolder, at: int) -> int:
    """What the run printed from a place on; where it ends now."""
    try:
        with open(run / "output.log", "rb") as f:
            f.seek(at)
            while piece := f.read(1 << 16):
                at += len(piece)
                sys.stdout.buffer.write(piece)
    except FileNotFoundError:
        pass
    sys.stdout.flush()
    return at


def run() -> NoReturn:
    """The entry point of `/etc/lab/bin/lab`."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except Problems as e:
        for p in e.problems:
            print(f"✗ {p}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
