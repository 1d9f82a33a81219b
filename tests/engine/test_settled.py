"""Settled questions that no scenario can show: other hosts, other versions, terminals, and what is never written."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lab.ledger import schema
from lab.ledger.ledger import Ledger
from lab.ledger.sqlite import File
from tests.labs import REPO, TestLab

A = {"file/a": "path: ROOT/out/a.txt\ncontent: hello\n"}

PLUG = '''
"""Kinds for questions that the shipped ones answer slowly."""
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from lab.core.kind import Declaration
from lab.core.step import Remove, Step

@dataclass(frozen=True, slots=True)
class Say(Step):
    verb: ClassVar[str] = "say_quietly"
    capacity: ClassVar[tuple[str, ...]] = ("voice",)
    path: str
    word: str

class Voice(Declaration):
    """What was said, in small letters."""
    kind: ClassVar[str] = "voice"
    derived: ClassVar[bool] = True
    reruns: ClassVar[bool] = True
    holds_data: ClassVar[bool] = True
    path: str
    word: str
    def wanted(self, context): return {"path": self.path}
    def observe(self, world, context):
        text = world.read(self.path)
        return None if text is None else {"path": self.path, "text": text.decode()}
    def steps(self, change, context):
        yield Remove(self.path) if change.action == "destroy" else Say(self.path, self.word)

def say(step, stage):
    path = Path(step.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(step.word.lower())
    with open(f"{step.path}.log", "a") as log:
        log.write(f"{step.word}\\n")
'''


@pytest.fixture
def voices(tmp_path: Path) -> dict[str, str]:
    """The environment in which the kind `voice` is installed as another package would."""
    info = tmp_path / "site/voices-1.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site/voices.py").write_text(PLUG)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: voices\nVersion: 1\n")
    points = "[lab.kinds]\nvoice = voices:Voice\n[lab.performers]\nsay_quietly = voices:say\n"
    (info / "entry_points.txt").write_text(points)
    return {"PYTHONPATH": f"{REPO}:{tmp_path}/site"}


def test_apply_stops_where_a_rerun_gave_equal_content(tmp_path: Path, voices: dict[str, str]) -> None:
    """What depends on a rerun is planned as "may change"; equal content spares it, other content does not."""
    lab = TestLab.make(
        tmp_path / "lab",
        {
            "voice/x": "path: ROOT/out/x\nword: hello\n",
            "voice/y": "path: ROOT/out/y\nword: after\nneeds: [voice.x]\n",
        },
    )
    assert lab.run("apply", "--yes", env=voices).code == 0
    lab.write("conf/voice/x.yaml", "path: ROOT/out/x\nword: HELLO\n")
    assert "only if its content really changes" in lab.run("plan", env=voices).out
    assert lab.run("apply", "--yes", env=voices).code == 0
    assert (tmp_path / "lab/out/x.log").read_text() == "hello\nHELLO\n"
    assert (tmp_path / "lab/out/y.log").read_text() == "after\n"
    assert lab.run("plan", "--detailed-exitcode", env=voices).code == 0
    lab.write("conf/voice/x.yaml", "path: ROOT/out/x\nword: bye\n")
    assert lab.run("apply", "--yes", env=voices).code == 0
    assert (tmp_path / "lab/out/y.log").read_text() == "after\nafter\n"


def test_drifted_data_is_destroyed_only_by_name(tmp_path: Path, voices: dict[str, str]) -> None:
    """`--yes` does not answer for data that is not what Lab made: without a terminal it stays."""
    lab = TestLab.make(tmp_path / "lab", {"voice/x": "path: ROOT/out/x\nword: hello\n"})
    assert lab.run("apply", "--yes", env=voices).code == 0
    lab.write("out/x", "a year of notes")
    (tmp_path / "lab/conf/voice/x.yaml").unlink()
    ran = lab.run("apply", "--yes", env=voices)
    assert ran.code == 1
    assert "voice.x is not what Lab made, and would be destroyed" in ran.err
    assert (tmp_path / "lab/out/x").read_text() == "a year of notes"
    lab.write("out/x", "hello")
    assert lab.run("apply", "--yes", env=voices).code == 0
    assert not (tmp_path / "lab/out/x").exists()


def test_protection_outlives_its_yaml(tmp_path: Path) -> None:
    """The plan is shown, the apply refused, by the ledger's own mark; taking the mark off first is the way."""
    lab = TestLab.make(tmp_path, {"file/a": A["file/a"] + "protect: true\n"})
    assert lab("apply", "--yes").code == 0
    (tmp_path / "conf/file/a.yaml").unlink()
    plan = lab("plan")
    assert plan.code == 1
    assert "- file.a  destroy" in plan.out
    assert lab("apply", "--yes").code == 1
    assert lab("destroy", "file.a", "--yes").code == 1
    assert (tmp_path / "out/a.txt").exists()
    lab.write("conf/file/a.yaml", A["file/a"])
    assert lab("apply", "--yes").code == 0
    (tmp_path / "conf/file/a.yaml").unlink()
    assert lab("apply", "--yes").code == 0
    assert not (tmp_path / "out/a.txt").exists()


def test_a_lock_of_another_host_is_only_removed_by_unlock(tmp_path: Path) -> None:
    """Whether a process elsewhere lives cannot be seen from here: the apply refuses, and says which verb decides."""
    lab = TestLab.make(tmp_path, A)
    left = {"host": "elsewhere", "pid": 1, "user": "me", "verb": "apply", "since": 1.0, "boot": "x"}
    lab.write("state/lock", json.dumps(left))
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "me on elsewhere (pid 1" in ran.err
    assert "lab state unlock" in ran.err
    assert lab("plan").code == 0
    assert lab("state", "unlock").code == 0
    assert lab("apply", "--yes").code == 0


def test_the_ledger_is_durable_and_private(tmp_path: Path) -> None:
    """Each commit waits for the disk, and the file is its owner's alone."""
    lab = TestLab.make(tmp_path, A)
    lab("apply", "--yes")
    path = tmp_path / "state/ledger.sqlite"
    with contextlib.closing(Ledger.write(File(path), "00000000-test")) as ledger:
        assert ledger.sql("PRAGMA synchronous") == [(2,)]
        assert ledger.sql("PRAGMA journal_mode") == [("wal",)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_older_ledger_is_migrated_by_the_next_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer Lab brings it up to date and loses nothing; where a migration fails the old one stays whole."""
    lab = TestLab.make(tmp_path, A)
    lab("apply", "--yes")
    path = tmp_path / "state/ledger.sqlite"

    def version() -> int:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return int(db.execute("PRAGMA user_version").fetchone()[0])

    monkeypatch.setattr(schema, "VERSION", 2)
    table = "CREATE TABLE added (x TEXT);"
    monkeypatch.setitem(schema.MIGRATIONS, 1, f"{table}CREATE TABLE resource (x TEXT);")
    lab.write("conf/file/b.yaml", "path: ROOT/out/b.txt\ncontent: b\n")
    assert lab("apply", "--yes").code == 1
    assert version() == 1
    monkeypatch.setitem(schema.MIGRATIONS, 1, table)
    assert lab("apply", "--yes").code == 0
    assert version() == 2
    assert lab("state", "list").out == "file.a\nfile.b\n"
    assert lab("state", "check").code == 0


def test_a_plan_of_a_lab_never_applied_writes_only_its_cache(tmp_path: Path) -> None:
    """No ledger, no stamp, no lock, no store: nothing says that the lab had been here."""
    lab = TestLab.make(tmp_path, A)
    for verb in (("plan",), ("plan", "--json"), ("status",), ("show", "file.a"), (), ("validate",), ("graph",)):
        assert lab(*verb).code == 0, verb
    made = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert {m for m in made if not m.startswith("state/cache/")} == {"conf/lab.yaml", "conf/file/a.yaml"}
    assert {p.name for p in tmp_path.iterdir()} <= {"conf", "state"}


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    """On a terminal the plan is painted; `NO_COLOR` and pipes get plain text."""
    lab = TestLab.make(tmp_path, A)

    def seen(**environ: str) -> str:
        ours, theirs = pty.openpty()
        env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "PYTHONPATH": str(REPO)}
        command = [sys.executable, "-m", "lab", "-C", str(tmp_path), "plan"]
        with subprocess.Popen(command, stdout=theirs, stdin=theirs, stderr=theirs, env=env | environ) as child:
            os.close(theirs)
            text = b""
            with contextlib.suppress(OSError):
                while chunk := os.read(ours, 4096):
                    text += chunk
            child.wait()
        os.close(ours)
        return text.decode()

    assert "\x1b[32m+\x1b[0m file.a" in seen()
    assert "\x1b" not in seen(NO_COLOR="1")
    assert "\x1b" not in lab.run("plan").out


def test_capacities_bound_what_runs_at_once(tmp_path: Path) -> None:
    """No capacity is below one: an apply that nothing may take part in would never end."""
    lab = TestLab.make(tmp_path, A, head="apply: {capacities: {cpu: 0}}\n")
    ran = lab("validate")
    assert ran.code == 1
    assert "conf/lab.yaml:2:27  `apply.capacities.cpu` must be at least 1, not the number 0" in ran.out + ran.err


OFFLINE = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        with open(os.environ["WATCHED"], "a") as log:
            print(event, args[1] if event == "socket.connect" else args[:2], file=log)
sys.addaudithook(watch)
"""


def test_offline_connects_to_nobody(tmp_path: Path) -> None:
    """With `offline: true`, neither plan, lock nor apply asks any host, whatever the source; each says so."""
    models = {
        "hub": "hub: org/model\n",
        "url": f"url: https://192.0.2.7/m.gguf\nsha256: {'ab' * 32}\n",
        "ollama": "ollama: tiny:q8\n",
        "git": "git: https://192.0.2.7/x.git\nrevision: main\n",
        "release": "release: org/repo\nrevision: v1\ninclude: ['*.gguf']\n",
    }
    lab = TestLab.make(tmp_path / "lab", {f"model/{n}": body for n, body in models.items()} | A, "offline: true\n")
    (tmp_path / "sitecustomize.py").write_text(OFFLINE)
    env = {"PYTHONPATH": f"{REPO}:{tmp_path}", "WATCHED": str(tmp_path / "log"), "HOME": str(tmp_path)}
    checked = lab.run("validate", env=env)
    assert checked.code == 0, checked.out
    assert lab.run("plan", env=env).code == 0
    locked, applied = lab.run("lock", env=env), lab.run("apply", "--yes", env=env)
    assert (locked.code, applied.code) == (1, 1)
    for name in models:
        assert f"model.{name}" in applied.err
    assert "1 done, 5 failed" in applied.out
    assert locked.out.count("offline") + locked.err.count("offline") >= len(models)
    said = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert "socket" not in said
    assert "clone" not in said
    assert "fetch" not in said
