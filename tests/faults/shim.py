"""Shim: `shim.c` compiled, and the campaigns that it makes possible: a sync that fails, a clock that jumps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults import hook
from tests.faults.campaign import Campaign, told_done

RECORD = 512
SPARED = re.compile(r"/state(/cache|/ledger\.sqlite.*|/cache/.*|/audit\.jsonl)?$|/\.\.lab\.json\.lab-tmp$")
"""Where an apply may go on: SQLite syncs anew, a copy of the ledger and the audit log stop nothing (that one is told),
a store's stamp is written again."""


def compiled(folder: Path) -> str:
    """The library; the test is skipped where there is no compiler, or another system's loader."""
    if sys.platform != "linux" or not shutil.which("cc"):
        pytest.skip("needs Linux and a C compiler")
    to = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(to), str(source), "-ldl"], check=True)
    return str(to)


class Sync(NamedTuple):
    """One sync of a file or folder."""

    failed: bool
    path: str


class Clocks(Campaign):
    """One deed, during which the wall clock is set."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.clock = self.log.with_name("clock")
        self.env["LAB_SHIM_CLOCK"] = str(self.clock)

    def jump(self, at: int, seconds: int) -> None:
        """Set by so much at a boundary: nobody minds, neither then nor when it is done again, nor when it is set back
        (whoever looks from the test's own process sees the true time)."""
        self.clock.write_text("0")
        ran = self.strike(at, f"clock:{seconds}")
        if not any("struck" in x for x in self._log()):
            self.report.missed += 1
            return
        self.report.injected += 1
        lost = [f"it exited with {ran.code}: {ran.out[-300:]} {ran.err[-300:]}"] * (ran.code != 0)
        self._note(f"{seconds} s at {at} ({self.lines[at]['site']})", [*lost, *self.goes_on(told_done(ran))])


class Syncs(Campaign):
    """One deed, on a disk that fails at one of its syncs: what was to be synced then may be gone for good.

    The kernel tells of lost pages once and then forgets: a second sync of the same bytes succeeds. So they must not be
    synced again but written again.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.book, self.grave = self.log.with_name("syncs"), self.log.with_name("grave")
        self.strike(0)
        self._fails(0)
        self.strike(0)
        self.syncs = self._told()

    def _fails(self, number: int) -> None:
        for path in (self.book, self.grave):
            path.unlink(missing_ok=True)
        self.env["LAB_SHIM_SYNC"] = f"{self.lab.root}\n{number}\n{self.book}\n{self.grave}"

    def _told(self) -> list[Sync]:
        text = self.book.read_bytes().decode() if self.book.exists() else ""
        lines = (text[n : n + RECORD] for n in range(0, len(text), RECORD))
        return [Sync(x.startswith("failed"), x[38:].strip()) for x in lines]

    def fail_sync(self, number: int) -> None:
        """The sync of that number fails once: the deed says so, and the next one writes anew what it was to keep."""
        self._fails(number)
        ran = self.strike(0)
        failed = next((s.path for s in self._told() if s.failed), "")
        if not failed:
            self.report.missed += 1
            return
        self.report.injected += 1
        where = f"the sync of {failed.replace(str(self.lab.root), '')} ({number})"
        said = ran.out + ran.err
        lost = [f"it said {word!r}: {said[-400:]}" for word in ("Traceback", "this is a fault in Lab") if word in said]
        spared = SPARED.search(failed)
        lost += [f"it exited with {ran.code}: {said[-300:]}"] * (ran.code not in ((0, 1) if spared else (1,)))
        self.report.refused += ran.code == 1
        # The book goes on: numbers from here on are never the failing one again.
        lost += self.goes_on()
        lost += [] if spared else self._kept(failed)
        self._note(where, lost)

    def _kept(self, failed: str) -> list[str]:
        """What was taken for safe although its sync had failed."""
        if self.grave.exists():
            inode = self.grave.stat().st_ino
            files = (f for f in self.lab.root.rglob("*") if f.is_file() and not f.is_symlink())
            return [f"{f} holds bytes that may never have reached the disk" for f in files if f.stat().st_ino == inode]
        again = [s.path for s in self._told()].count(failed) > 1
        named = {"replace", "rename", "link", "symlink", "exchange"}
        anew = [x for x in hook.read(str(self.log)) if x.get("at") in named]
        if Path(failed).is_dir() and not (again and any(Path(x["path"]).parent == Path(failed) for x in anew)):
            return [f"the names in {failed} may never have reached the disk, and nobody wrote them again"]
        return []
