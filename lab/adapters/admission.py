"""Admission: what needs much memory starts when it fits in what is free now, and is stopped if it outgrows that.

`state/admission-HOST.json` holds every promise and every waiter, keyed by pid and start time, under a kernel lock: a
dead holder's promise lapses by itself, and two processes never get the same bytes. The supervisor of a run asks here
before it begins (`lab.runs.supervise`), whoever wants the run: `lab run`, `lab apply`, a sweep.

    with admit(lab.state, need=8 << 30, total=20 << 30, name="experiment.ppl", wait=True) as promise:
        child = Popen(...)
        with watch(child.pid, promise.need) as watched: child.wait()
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters import machine
from lab.core.problem import problem
from lab.core.units import size

POLL = 0.1
"""Seconds between a waiter's looks."""
SLACK, GROWTH = 64 << 20, 1.05
"""A job may exceed its promise by 5 % and 64 MiB before it is stopped."""
SMALL = 256 << 20
"""What is not expected to take so much waits for nobody."""
LEFT = 0.03
"""Share of the memory below which a job that outgrew what was merely expected of it is stopped."""
GRACE = 5.0
"""Seconds between asking a job to stop and killing it."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Bytes set aside for a process and all its children."""

    id: str
    name: str
    need: int
    pid: int
    waited: float = 0.0
    """Seconds it waited in the queue."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, as `lab status` shows it."""

    name: str
    need: int
    pid: int
    held: bool
    uses: int
    """Bytes its processes take now."""
    reason: str = ""
    """Why it waits."""


@contextmanager
def admit(
    state: Path,
    need: int,
    total: int,
    name: str,
    wait: bool,
    *,
    pid: int | None = None,
    check: Callable[[], None] | None = None,
    say: Callable[[str], None] | None = None,
    free: Callable[[], int] = machine.available,
) -> Iterator[Promise]:
    """A promise of `need` bytes out of `total`, held until the block ends or the process dies.

    First come, first served: nobody passes an earlier waiter. Where it does not fit and `wait` is false, or where it
    could never fit, a Problem names what holds the memory. `check` is called while waiting and may raise; `say` is
    told why it waits whenever the reason changes.
    """
    if need > total:
        raise problem(
            f"{name} needs {size(need)} of memory, more than there is to give",
            why=f"at most {size(total)} are given out on this host",
            do="declare a smaller type or context (`lab advise`), or `allow_overcommit: true`",
        )
    state.mkdir(parents=True, exist_ok=True)
    mine, begun, told = uuid.uuid4().hex, time.monotonic(), ""
    who = pid or os.getpid()
    try:
        while True:
            reason, behind = _try(state, mine, who, name, need, total, free, queue=wait)
            if not reason:
                break
            if not wait:
                raise problem(f"{name} does not fit in memory now", why=reason, do="wait for it to end, or stop it")
            if reason != told and say:
                say(reason)
            told = reason
            if check:
                check()
            time.sleep(min(POLL * (1 + behind), 1.0))
        yield Promise(mine, name, need, who, time.monotonic() - begun)
    finally:
        _release(state, mine)


def place(state: Path) -> Path:
    """The ledger of this host; a state folder that several hosts share has one for each."""
    return state / f"admission-{socket.gethostname()}.json"


def status(state: Path) -> list[Entry]:
    """Every promise and waiter, in the order they came. Reads."""
    if not place(state).exists():
        return []
    with _ledger(state) as entries:
        found = [dict(e) for e in entries]
    return [Entry(e["name"], e["need"], e["pid"], e["held"], footprint(e["pid"]), e.get("reason", "")) for e in found]


def footprint(pid: int, without: Collection[int] = ()) -> int:
    """Bytes that a process and its children take now, but for those `without`; 0 where it is gone. Reads.

    Memory that forked processes share counts once where the system tells it (PSS), else each time.
    """
    import psutil

    try:
        root = psutil.Process(pid)
        below = {p.pid: p for p in root.children(recursive=True)} if pid not in without else {}
        parents = {n: p.ppid() for n, p in below.items()}
    except psutil.Error:
        return 0
    total = 0
    for process in (root, *(p for n, p in below.items() if not _among(n, parents, without))):
        try:
            total += _own(process)
        except psutil.Error:
            continue
    return total


def _among(pid: int, parents: Mapping[int, int], others: Collection[int]) -> bool:
    """Whether it or one above it is of `others`. Pure."""
    while pid in parents:
        if pid in others:
            return True
        pid = parents[pid]
    return False


def _own(process: Any) -> int:
    pss = getattr(process, "memory_full_info", None)
    if pss is not None and os.path.exists(f"/proc/{process.pid}/smaps_rollup"):
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith("Pss_Anon:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
    return int(process.memory_info().rss)


class Watched:
    """What a watch saw: the highest footprint, and whether the job was stopped."""

    def __init__(self) -> None:
        self.peak = 0
        self.stopped = ""
        """Why it was stopped; empty where it was not."""


@contextmanager
def watch(
    pid: int, need: int, *, every: float = 0.1, grace: float = GRACE, scarce: Callable[[], bool] = lambda: True
) -> Iterator[Watched]:
    """While the block runs, a process tree that outgrows `need` is stopped: asked first, killed after `grace`.

    Where `need` was only forecast, `scarce` says whether it must be: as long as there is room it may go on.
    """
    seen, done = Watched(), threading.Event()

    def look() -> None:
        limit = need * GROWTH + SLACK
        while not done.wait(every):
            uses = footprint(pid)
            seen.peak = max(seen.peak, uses)
            if uses > limit and scarce():
                seen.stopped = f"it took {size(uses)} and was promised {size(need)}"
                _stop(pid, grace)
                return

    thread = threading.Thread(target=look, name=f"watch-{pid}", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def scarce() -> bool:
    """Whether so little memory is left on this host that it would soon swap. Reads."""
    import psutil

    return machine.available() < LEFT * int(psutil.virtual_memory().total)


def _stop(pid: int, grace: float) -> None:
    import psutil

    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for process in family:
        _quietly(process.terminate)
    # Not psutil's wait: it would reap the child, and its parent would never learn how it ended.
    deadline = time.monotonic() + grace
    while (alive := [p for p in family if _lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in alive:
        _quietly(process.kill)


def _lives(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _quietly(act: Callable[[], object]) -> None:
    import psutil

    try:
        act()
    except psutil.Error:
        return


def _try(
    state: Path, mine: str, pid: int, name: str, need: int, total: int, free: Callable[[], int], *, queue: bool
) -> tuple[str, int]:
    """Takes the promise where it fits; otherwise stands in the queue (with `queue`) and says why, and how far back."""
    with _ledger(state) as entries:
        me = next((e for e in entries if e["id"] == mine), None)
        held = [e for e in entries if e["held"]]
        before = [e for e in entries if not e["held"] and (me is None or e["came"] < me["came"])]
        reason = _reason(need, total, held, before, free)
        if not reason:
            entries[:] = [e for e in entries if e["id"] != mine]
            entries.append(_entry(mine, pid, name, need, held=True, came=me["came"] if me else time.time()))
        elif queue:
            if me is None:
                me = _entry(mine, pid, name, need, held=False, came=time.time())
                entries.append(me)
            me["reason"] = reason
        return reason, len(before)


def _reason(
    need: int, total: int, held: list[dict[str, Any]], before: list[dict[str, Any]], free: Callable[[], int]
) -> str:
    if before:
        return f"{before[0]['name']} came first and waits for {size(before[0]['need'])}"
    pids = {e["pid"] for e in held}
    uses = {e["id"]: footprint(e["pid"], pids - {e["pid"]}) for e in held}
    given = sum(max(e["need"], uses[e["id"]]) for e in held)
    names = ", ".join(f"{e['name']} ({size(e['need'])})" for e in held)
    if given + need > total:
        return f"{size(max(0, total - given))} of {size(total)} are left beside {names}; it needs {size(need)}"
    unclaimed = sum(max(0, e["need"] - uses[e["id"]]) for e in held)
    now = free() - unclaimed
    if need > now:
        return f"{size(max(0, now))} of memory are free now; it needs {size(need)}"
    return ""


def _entry(mine: str, pid: int, name: str, need: int, *, held: bool, came: float) -> dict[str, Any]:
    return {"id": mine, "pid": pid, "born": _born(pid), "name": name, "need": need, "held": held, "came": came}


def _release(state: Path, mine: str) -> None:
    with _ledger(state) as entries:
        entries[:] = [e for e in entries if e["id"] != mine]


def _born(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


@contextmanager
def _ledger(state: Path) -> Iterator[list[dict[str, Any]]]:
    """The entries of living processes, under the kernel's lock; what the block leaves is written by rename."""
    path = place(state)
    with open(path.with_suffix(".lock"), "a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = _read(path)
        entries = [dict(e) for e in kept if (born := _born(e["pid"])) is not None and _same(born, e["born"])]
        yield entries
        if entries == kept:
            return
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(entries), encoding="utf-8")
        os.replace(temporary, path)


def _same(born: float, noted: float | None) -> bool:
    return noted is not None and abs(born - noted) < 0.02


def _read(path: Path) -> list[dict[str, Any]]:
    # A ledger that cannot be read is an empty one: its holders' footprints still count as memory that is not free.
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [e for e in found if isinstance(e, dict) and {"id", "pid", "born", "name", "need", "held", "came"} <= set(e)]
