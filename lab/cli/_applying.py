"""Applying: the question before, the two Ctrl-Cs during, and the report after, shared by the verbs that apply."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

from lab.app.apply import Applied, Approve
from lab.apply.results import Outcome
from lab.apply.walk import Walk
from lab.cli import _arguments
from lab.core.change import Action
from lab.core.language import t
from lab.core.problem import problem
from lab.plan import text
from lab.plan.plan import Plan


def approver(yes: bool, *, quiet: bool = False, saved: bool = False) -> Approve:
    """Shows the plan and asks, unless `yes`. Data that is not what Lab made is asked for by name all the same."""

    def approve(plan: Plan) -> bool:
        if not quiet:
            print(text.render(plan, colour=_arguments.colour(), hint=False))
            print(flush=True)
        for change in plan.todo:
            if change.action is Action.DESTROY and change.drift and not change.release and _holds_data(change.address):
                _by_name(change.address)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise problem("nobody can be asked here", why="standard input is no terminal", do="add `--yes`")
        answer = input(t("Do it? [y/N] "))
        return answer.strip().lower() in ("y", "yes", "是")

    return approve


def _holds_data(address: str) -> bool:
    from lab import kinds

    kind = kinds.load(address.partition(".")[0])
    return bool(kind and kind.holds_data)


def _by_name(address: str) -> None:
    if not sys.stdin.isatty():
        raise problem(
            f"{address} is not what Lab made, and would be destroyed",
            why="it changed since the last apply and holds data",
            do="look at it with `lab drift`, then apply on a terminal, or `lab state rm` it to keep it",
        )
    if input(f"{address} is not what Lab made. Type its name to destroy it: ").strip() != address:
        raise problem(f"{address} is kept", do="exclude it with `--exclude`")


@contextmanager
def interruptible() -> Iterator[Callable[[Walk], None]]:
    """Inside, Ctrl-C (or SIGTERM) once asks the walk to stop after the steps in hand, twice cancels those."""
    walks: list[Walk] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not walks:
            raise KeyboardInterrupt
        for walk in walks:
            if walk.stop.is_set():
                walk.cancel.set()
                print(t("\nCancelling the steps in hand."), file=sys.stderr, flush=True)
            else:
                walk.stop.set()
                print(t("\nFinishing the steps in hand; Ctrl-C again cancels them."), file=sys.stderr, flush=True)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield walks.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report(done: Applied | None, out: IO[str], *, quiet: bool = False) -> int:
    """Prints the last lines of an apply; returns the exit code."""
    if done is None:
        print(t("Nothing was changed."), file=out)
        return 1
    if not done.results:
        print(text.nothing(done.plan), file=out)
        return 0
    parts = [
        t(f"{{n}} {word}", n=n)
        for word, n in (
            ("done", done.count(Outcome.DONE)),
            ("failed", done.count(Outcome.FAILED)),
            ("not tried", done.count(Outcome.NOT_TRIED)),
        )
        if n
    ]
    line = ", ".join(parts) + ". " + t("The ledger is true to the machine (generation {n}).", n=done.generation)
    if done.failed:
        again = shlex.join(["lab", "apply", *done.plan.header.overrides])
        line += t(" Run `{command}` again to finish.", command=again)
    elif not quiet:
        line += t(" See `lab status`.")
    print(line, file=out)
    return 130 if done.interrupted else 1 if done.failed else 0
