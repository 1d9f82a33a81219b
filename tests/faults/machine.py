"""Machine: random edits, applies, kills, tampering, rollbacks and destroys of files, and what must always hold."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lab.cli.main import main
from tests.faults import hook
from tests.labs import Ran, TestLab

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.sampled_from(["p", "q", "deep/r", "deep/er/s"])
TEXTS = st.sampled_from(["", "one", "two\nlines\n", "ünïcode ☃"])
MODES = st.sampled_from(["0644", "0600"])

Block = tuple[str, str, str]


class InAFolder(RuleBasedStateMachine):
    """A machine with a lab in a folder of its own, in memory where there is such a place."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.top = Path(tempfile.mkdtemp(prefix="lab-machine-", dir=memory))
        self.lab = TestLab.make(self.top / "lab")

    def teardown(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)


class Machine(InAFolder):
    """What is declared is kept beside the lab; after each good apply the world is exactly that."""

    def __init__(self) -> None:
        super().__init__()
        self.conf: dict[str, Block] = {}
        self.then: dict[int, dict[str, Block]] = {}
        self.clean = False

    # --- what people do ----------------------------------------------------------------------------------------

    @rule(name=NAMES, path=PATHS, text=TEXTS, mode=MODES)
    def declare(self, name: str, path: str, text: str, mode: str) -> None:
        if path not in {p for n, (p, _, _) in self.conf.items() if n != name}:
            self.conf[name] = (path, text, mode)
            self.lab.write(
                f"conf/file/{name}.yaml", f"path: ROOT/out/{path}\ncontent: {json.dumps(text)}\nmode: '{mode}'\n"
            )

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        if self.conf.pop(name, None):
            (self.lab.root / f"conf/file/{name}.yaml").unlink()

    @rule()
    def apply(self) -> None:
        before = self.world()
        ran = self.lab("apply", "--yes")
        if self.refused(ran, before):
            return
        self.clean = True
        assert "No changes" in (said := self.lab("plan").out), said
        assert self.lab("verify").code == 0
        assert self.world() == {p: (t, m) for p, t, m in self.conf.values()}
        self.keep(self.conf)

    @rule(at=st.integers(1, 130))
    def kill(self, at: int) -> None:
        self.clean = False
        back = hook.install(hook.Fault(str(self.lab.root), str(self.top / "log"), at, raising=True))
        quiet = io.StringIO()
        try:
            with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), contextlib.suppress(Exception):
                main(["-C", str(self.lab.root), "apply", "--yes"], quiet, quiet)
        except hook.Killed:
            pass
        finally:
            back()
        # A generation that was begun is no state to go back to.
        self.keep({"killed": ("", "", "")})

    @precondition(lambda self: self.clean and self.conf)
    @rule(data=st.data(), how=st.sampled_from(["write", "unlink", "chmod"]))
    def tamper(self, data: st.DataObject, how: str) -> None:
        path = self.lab.root / "out" / data.draw(st.sampled_from(sorted(self.conf.values())))[0]
        if not path.exists():
            return
        if how == "write":
            path.write_text("somebody else")
        elif how == "unlink":
            path.unlink()
        else:
            path.chmod(0o400)

    @precondition(lambda self: any("killed" not in c for c in self.then.values()))
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n, c in self.then.items() if "killed" not in c]))
        before = self.world()
        ran = self.lab("rollback", str(number), "--yes")
        if self.refused(ran, before):
            return
        assert self.world() == {p: (t, m) for p, t, m in self.then[number].values()}
        self.keep(self.then[number])
        self.clean = False  # the files may be elsewhere than what is declared now

    @rule()
    def destroy(self) -> None:
        ran = self.lab("destroy", "--all", "--yes")
        assert ran.code == 0, ran
        assert self.world() == {}
        self.keep({})

    # --- what must hold ----------------------------------------------------------------------------------------

    def refused(self, ran: Ran, before: dict[str, tuple[str, str]]) -> bool:
        """Whether nothing was done, and rightly: a declared path is taken by what another declaration made."""
        if ran.code == 0:
            return False
        assert ran.code == 1
        said = ran.out + ran.err
        assert "not managed" in said or "not declared" in said or "same path" in said or "yet" in said, said
        assert "Traceback" not in said
        assert "fault in Lab" not in said
        assert self.world() == before
        return True

    def world(self) -> dict[str, tuple[str, str]]:
        """The files that are there."""
        top = self.lab.root / "out"
        return {
            f.relative_to(top).as_posix(): (f.read_bytes().decode(), f"{f.stat().st_mode & 0o777:04o}")
            for f in (top.rglob("*") if top.is_dir() else ())
            if f.is_file()
        }

    def keep(self, conf: dict[str, Block]) -> None:
        """What the newest generation declared, if it is a new one."""
        if number := self.generation():
            self.then.setdefault(number, dict(conf))

    def generation(self) -> int:
        """The newest generation."""
        with contextlib.suppress(sqlite3.Error):
            db = sqlite3.connect(f"file:{self.lab.root}/state/ledger.sqlite?mode=ro", uri=True)
            with contextlib.closing(db):
                return int(db.execute("SELECT max(number) FROM generation").fetchone()[0] or 0)
        return 0

    @invariant()
    def the_ledger_is_sound(self) -> None:
        ledger = self.lab.root / "state/ledger.sqlite"
        if ledger.exists() and ledger.stat().st_size:
            ran = self.lab("state", "check")
            assert ran.code == 0, ran
