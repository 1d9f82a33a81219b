"""Campaign: one deed of a lab, stopped at every boundary, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import hook
from tests.faults.hook import Fault
from tests.faults.zygote import Zygote
from tests.labs import Ran, TestLab

FAULT_OF_OURS = ("Traceback", "this is a fault in Lab")


@dataclass
class Report:
    """What a campaign tried and found."""

    name: str = ""
    boundaries: int = 0
    injected: int = 0
    survived: int = 0
    refused: int = 0
    missed: int = 0
    lost: list[str] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = f"{self.boundaries} boundaries, {self.injected} faults, {self.survived} survived"
        figures += f", {self.missed} not met" * bool(self.missed)
        return f"{self.name}: {figures}, {len(self.lost)} lost" + "".join(f"\n  {x}" for x in self.lost[:12])


@dataclass
class Deed:
    """A verb on a lab in a certain state: `before` is applied undisturbed, `after` is what is interrupted."""

    name: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    verb: tuple[str, ...] = ("apply", "--yes", "--json-events")
    env: Mapping[str, str] = field(default_factory=dict)


class Campaign:
    """Repeats one deed from the same start, each time with another fault."""

    def __init__(self, tmp: Path, deed: Deed, zygote: Zygote, *, broken: str = "") -> None:
        self.lab = TestLab(tmp / "lab")
        self.env: dict[str, str] = {}
        """What is in the surroundings of every deed besides."""
        self.deed, self.zygote, self.broken = deed, zygote, broken
        self.dropped = {n.replace("/", ".") for n in deed.before if n not in deed.after}
        self.base, self.log = tmp / "base", tmp / "log"
        self._declare(deed.before)
        if deed.before:
            made = self.lab.run("apply", "--yes", env=deed.env)
            assert made.code == 0, made
        self._declare(deed.after)
        shutil.copytree(self.lab.root, self.base, symlinks=True)
        whole = self.strike(0)
        assert whole.code == 0, whole
        lines = self._log()
        self.lines = {x["n"]: x for x in lines if "n" in x}
        self.inner = [x for x in lines if "inner" in x]
        """What the apply's own processes do: its heavy work, and what stands over a run."""
        self.boundaries = len(self.lines)
        self.report = Report(deed.name, self.boundaries)
        for line in lines:
            if "at" in line:
                self.report.names[line["at"]] = self.report.names.get(line["at"], 0) + 1
        self.world = world(self.lab.root)

    def _declare(self, files: Mapping[str, str]) -> None:
        shutil.rmtree(self.lab.root / "conf", ignore_errors=True)
        TestLab.make(self.lab.root, files)

    def every(self, stride: int = 1) -> Iterator[int]:
        """The boundaries; with a stride only some of them, the last always (the others are other runs' business)."""
        yield from range(self.boundaries, 0, -stride)

    def classes(self) -> Iterator[int]:
        """The first boundary of each sort: what is done, and where."""
        yield from {x["site"]: n for n, x in reversed(self.lines.items())}.values()

    def line(self, at: int) -> dict[str, Any]:
        """What the undisturbed deed does at a boundary."""
        return self.lines[at]

    def strike(self, at: int | dict[str, Any], how: str = "kill", *, lasting: bool = False) -> Ran:
        """The deed from its start, with a fault at what the undisturbed deed does at a boundary; 0 is none."""
        line = at if isinstance(at, dict) else self.lines[at] if at else {"nth": 0, "site": ""}
        self._settled()
        shutil.rmtree(self.lab.root)
        shutil.copytree(self.base, self.lab.root, symlinks=True)
        fault = Fault(str(self.lab.root), str(self.log), line["nth"], line["site"], how, lasting, line.get("inner", ""))
        return self._again(fault, broken=self.broken)

    def _again(self, fault: Fault, broken: str = "") -> Ran:
        self.log.unlink(missing_ok=True)
        words = ("-C", str(self.lab.root), *self.deed.verb)
        return self.zygote.run(*words, fault=fault, env={**self.deed.env, **self.env}, broken=broken)

    def _log(self) -> list[dict[str, Any]]:
        return hook.read(str(self.log))

    def _settled(self) -> list[str]:
        """What the deed started has ended; what has not within a minute is told, and ended."""
        until = time.monotonic() + 60
        while (left := living(self.lab.root)) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"still running: {' '.join(words)[:200]}" for words in left.values()]

    def kill(self, at: int, how: str = "kill", *, destroy: bool = False) -> None:
        """Killed at a boundary: counted, and what was lost noted."""
        ran = self.strike(at, how)
        if ran.code == 0:
            self.report.missed += 1  # nobody survives SIGKILL: this time it did not do that at all
            return
        self.report.injected += 1
        where = f"{how} at {at} ({self.lines[at]['site']})"
        lost = [] if ran.code == -9 else [f"it was not killed but exited with {ran.code}"]
        lost += unsynced(hook.read(str(self.log)))
        self._note(where, [*lost, *(self.nothing_stays() if destroy else self.goes_on(told_done(ran)))])

    def fail(self, at: int | dict[str, Any], how: str, *, lasting: bool = False) -> None:
        """An effect failed, or an inner process was killed before it: told plainly, and the next apply completes."""
        ran = self.strike(at, how, lasting=lasting)
        if not any("struck" in x for x in self._log()):
            self.report.missed += 1
            return
        self.report.injected += 1
        line = at if isinstance(at, dict) else self.lines[at]
        where = f"{how}{' lasting' * lasting} at {line.get('inner', at)} ({line['site']})"
        lost = [] if ran.code in (0, 1) else [f"it exited with {ran.code}"]
        self.report.refused += ran.code == 1
        if ran.code == 0 and self.deed.verb[0] == "apply" and "No changes" not in self.lab("plan").out:
            lost.append("it said that all was well, and it was not")
        said = ran.out + ran.err
        lost += [f"it said {word!r}: {said[-400:]}" for word in FAULT_OF_OURS if word in said]
        if ran.code == 1 and not ran.err.strip() and "✗" not in ran.out:
            lost.append("it failed and did not say why")
        self._note(where, [*lost, *self.goes_on()])

    def _note(self, where: str, lost: list[str]) -> None:
        self.report.survived += not lost
        self.report.lost += [f"{where}: {x}" for x in lost]

    # --- what must hold ----------------------------------------------------------------------------------------

    def goes_on(self, told: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        """What is wrong after the deed was stopped and then done again. `told` are addresses reported as done."""
        old = world(self.base)
        lost = [
            f"{p} is torn: {x}"
            for p, x in world(self.lab.root).items()
            if p.startswith("out/") and not p.endswith("lab-tmp") and x not in (old.get(p), self.world.get(p))
        ]
        ledger = self.lab.root / "state/ledger.sqlite"
        if ledger.exists() and ledger.stat().st_size and (check := self.lab("state", "check")).code:
            lost.append(f"the ledger is not sound: {check.err}")
        if (ran := self.lab("plan")).code:
            lost.append(f"`lab plan` fails: {ran.err}")
        settled = {a for (a,) in _rows(ledger, "SELECT address FROM resource WHERE pending = 0")}
        known = {a for (a,) in _rows(ledger, "SELECT address FROM resource")}
        ended = told & known if self.deed.verb[0] == "destroy" else told - settled
        lost += [f"told as done and not recorded so: {a}" for a in sorted(ended) if a in known or a not in self.dropped]
        finished, steps = self._finished(ledger)
        again = self._again(Fault(str(self.lab.root), str(self.log)))
        if again.code:
            lost.append(f"the next {self.deed.verb[0]} failed: {again.err[-600:]} {again.out[-300:]}")
        for line in hook.read(str(self.log)):
            if line.get("perform") in finished | told:
                lost.append(f"finished work was repeated: {line['perform']}: {line['text']}")
            if (line.get("perform"), line.get("text")) in steps:
                lost.append(f"a finished step was repeated: {line['perform']}: {line['text']}")
        meta = dict(_rows(ledger, "SELECT key, value FROM meta"))
        if meta.get("lab") != "00000000-test" or int(meta.get("serial", 0)) < 1:
            lost.append(f"the ledger does not know whose it is: {meta}")
        if self.deed.verb[0] == "apply":
            plan = self.lab("plan")
            if "No changes" not in plan.out:
                lost.append(f"the plan after it is not empty: {plan.out} {plan.err}")
        lost += self._settled()
        verify = self.lab("verify")
        if verify.code:
            lost.append(f"verify found: {verify.out} {verify.err}")
        lost += different(self.world, world(self.lab.root))
        return lost

    def nothing_stays(self) -> list[str]:
        """What is left of ours when all is destroyed right after the deed was stopped."""
        gone = self.zygote.run("-C", str(self.lab.root), "destroy", "--all", "--yes")
        lost = [f"destroy failed: {gone.err} {gone.out}"] if gone.code else []
        lost += [f"orphaned: {p}" for p in world(self.lab.root)]
        if "Nothing is recorded" not in (left := self.lab("state", "list").out):
            lost.append(f"still recorded: {left}")
        return lost

    def _finished(self, ledger: Path) -> tuple[set[str], set[tuple[str, str]]]:
        """The addresses finished by the stopped deed, and its finished steps, as the ledger has them."""
        began = _rows(self.base / "state/ledger.sqlite", "SELECT max(number) FROM generation")
        base = int((began or [(0,)])[0][0] or 0)
        rows = _rows(ledger, f"SELECT address FROM resource WHERE pending = 0 AND generation > {base}")
        now = {a for (a,) in _rows(ledger, "SELECT address FROM resource")}
        gone = {a for (a,) in _rows(self.base / "state/ledger.sqlite", "SELECT address FROM resource")} - now
        steps = _rows(ledger, "SELECT address, text FROM journal WHERE state = 'done'")
        return {a for (a,) in rows} | gone, {(a, t) for a, t in steps}


def living(root: Path) -> dict[int, list[str]]:
    """Processes whose words name the lab: pid → words."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
            if any(str(root) in w for w in words):
                found[int(folder.name)] = words
    return found


def told_done(ran: Ran) -> set[str]:
    """The addresses that the events of a stopped apply had called done."""
    found = set()
    for line in ran.err.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("type") == "done":
                found.add(str(event["address"]))
    return found


def unsynced(lines: list[dict[str, Any]]) -> list[str]:
    """Files of ours that took their name before their bytes were on disk: a power cut would leave them empty. Pure.

    Stamps and caches (JSON below state/ and the store's own) may be lost: who reads them takes that for none.
    """
    wet: set[str] = set()
    lost = []
    for line in lines:
        path, name = str(line.get("path", "")), line.get("at")
        if name == "write":
            wet.add(path)
        elif name == "fsync":
            wet.discard(path)
        elif (
            name in ("replace", "rename")
            and line.get("source") in wet
            and not ("/state/" in path or "/store/.ledger-" in path)
        ):
            lost.append(f"{path} was renamed before it was synced")
    return lost


def _rows(path: Path, query: str) -> list[tuple[str, ...]]:
    if not path.exists():
        return []
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()
    return []


def world(root: Path) -> dict[str, str]:
    """Everything Lab put there but blobs, stamps and its own state: path → what it is; temporaries anywhere."""
    return dict([*_world(root), *_kept(root)])


def _kept(root: Path) -> Iterator[tuple[str, str]]:
    """What other kinds keep below `state/`, whose names and contents differ from run to run: its sort and how many."""
    found = Counter(
        f"state/{name}/{hook.RANDOM.sub('*', path.name)}"
        for name in ("experiments", "sweeps", "frameworks", "maintenance", "outputs", "envs", "envs/.made/*")
        for path in root.glob(f"state/{name}/*")
        if not path.name.startswith((".", "study"))
    )
    for result in root.glob("state/runs/*"):
        whole = result / "result.json"
        state = json.loads(whole.read_text())["state"] if whole.exists() else "without an end"
        if state in ("finished", "without an end"):
            found[f"state/runs {state} {hook.RANDOM.sub('*', result.name)}"] += 1
    yield from ((name, f"{n} of it") for name, n in found.items())


def _world(root: Path) -> Iterator[tuple[str, str]]:
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder) / name
            shown = path.relative_to(root).as_posix()
            temporary = name.endswith(("lab-tmp", ".tmp", ".part")) or shown.startswith(("state/work/", "store/inco"))
            ours = shown.startswith(("out/", "store/models/")) and (path.is_symlink() or not path.is_dir())
            if path.is_symlink() and ours:
                yield shown, f"link to {os.readlink(path)}"
            elif path.name == ".lab.json" and ours:
                yield shown, "provenance"
            elif ours or (temporary and shown != "store/incoming"):
                mode = f"{path.stat().st_mode & 0o7777:04o}"
                data = b"" if path.is_dir() else path.read_bytes()
                yield shown, f"{mode} {hashlib.sha256(data).hexdigest()[:12]}"


def different(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Paths that are missing, too many or other than wanted."""
    paths = sorted({*wanted, *found})
    return [
        f"{p} is {found.get(p, 'missing')}, not {wanted.get(p, 'there at all')}"
        for p in paths
        if wanted.get(p) != found.get(p)
    ]
