"""A team's ledger on a real PostgreSQL server: its restart, a dropped connection and a second writer lose nothing.

The lifecycle's own tests run here once more, with their ledgers on the server.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import labs
from tests.engine.test_lifecycle import *  # noqa: F403
from tests.engine.test_sql import *  # noqa: F403
from tests.labs import TestLab
from tests.postgres import Server

pytest.importorskip("psycopg")
FILES = {f"file/f{n:03}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(6)}


pytestmark = pytest.mark.usefixtures("remote")


def test_stages_share_no_records(tmp_path: Path, remote: Any) -> None:
    """Each has a schema of its own, and sees what another holds only as a place that is taken."""
    files = {"file/a": "path: ROOT/out/${lab.stage}\ncontent: x\n", "stage/test": "", "stage/prod": ""}
    lab = TestLab.make(tmp_path, {n: t or "# @package _global_\n" for n, t in files.items()})
    assert lab("apply", "--yes", "stage=test").code == 0
    assert lab("state", "list", "stage=prod").out.startswith("Nothing is recorded")
    assert lab("apply", "--yes", "stage=prod").code == 0
    with closing(remote.connect()) as db:
        found = db.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'lab%' ORDER BY 1").fetchall()
    assert [name for (name,) in found] == ["lab_00000000_test_prod", "lab_00000000_test_test"]
    lab.write("conf/file/a.yaml", "path: ROOT/out/test\ncontent: x\n")
    assert "which file.a of stage test holds" in lab("plan", "stage=prod").out


def drop_all(remote: Any) -> int:
    """Every connection but this one is cut, as a network would; returns how many."""
    with closing(remote.connect()) as db:
        found = db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
        return len(found.fetchall())


def whole(lab: TestLab, count: int) -> None:
    """Everything is as declared, recorded once, and told once."""
    assert lab("plan", "--detailed-exitcode").code == 0
    assert lab("state", "check").code == 0
    assert lab("verify").code == 0
    assert len(lab("state", "list").out.split()) == count
    rows = lab("sql", "SELECT address, count(*) c FROM history WHERE action = 'create' GROUP BY address HAVING c > 1")
    assert "file." not in rows.out, rows


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_cut_at_any_commit(
    tmp_path: Path, remote: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Cut right before or right after a commit arrived: the same apply goes on, and nothing is written twice."""
    from lab.adapters import postgresql_connection as module

    send, cuts = module.Connection.commit, []

    def commit(self: Any) -> None:
        if len(cuts) < 8 and self._writing:
            db = self._db

            class Cut:
                closed = property(lambda _: db.closed)

                def execute(self, sql: str, *given: Any) -> Any:
                    if sql != "COMMIT":
                        return db.execute(sql, *given)
                    if when == "after":
                        db.execute(sql)
                    cuts.append(drop_all(remote))
                    return db.execute(sql if when == "before" else "SELECT 1")

                def __getattr__(self, name: str) -> Any:
                    return getattr(db, name)

            self._db = Cut()
        send(self)
        if isinstance(self._db, object) and type(self._db).__name__ == "Cut":
            self._db = db

    monkeypatch.setattr(module.Connection, "commit", commit)
    lab = TestLab.make(
        tmp_path / "lab", {**FILES, "file/after": "path: ROOT/out/after\ncontent: x\nneeds: [file.f001]\n"}
    )
    ran = lab("apply", "--yes")
    assert ran.code == 0, ran
    assert len(cuts) > 3
    assert all(cuts)
    whole(lab, 7)


def test_a_connection_cut_as_soon_as_it_is_open(tmp_path: Path, remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was asked of it yet: it is opened once more, and so is the one that takes the lock."""
    lab = TestLab.make(tmp_path / "lab", FILES)
    assert lab("apply", "--yes").code == 0
    connect, cut = type(remote).connect, set()

    def cutting(self: Any, verb: str = "read") -> Any:
        made = connect(self, verb)
        if verb not in cut:
            cut.add(verb)
            with suppress(remote.driver.Error):
                made.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return made

    monkeypatch.setattr(type(remote), "connect", cutting)
    lab.write("conf/file/more.yaml", "path: ROOT/out/more\ncontent: x\n")
    ran = lab("apply", "--yes")
    assert ran.code == 0, ran
    assert cut == {"read", "apply"}
    cut.clear()
    remote.save(tmp_path / "copy.sqlite")
    assert cut == {"read"}


def test_a_connection_cut_again_and_again(tmp_path: Path, remote: Any) -> None:
    """Whenever it is cut, the apply goes on by itself."""
    files = {f"file/f{n:03}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(300)}
    lab = TestLab.make(tmp_path / "lab", files)
    child = lab.child("apply", "--yes", "-q")
    cut = 0
    while child.poll() is None:
        time.sleep(0.15)
        cut += drop_all(remote)
    out, err = child.communicate()
    assert child.returncode == 0, out + err
    assert "Traceback" not in err
    assert cut
    whole(lab, 300)


@pytest.mark.parametrize("when", ["made", "meta", "journal", "declared", "committed"])
def test_a_connection_cut_while_a_ledger_is_restored_leaves_the_one_there(
    tmp_path: Path, remote: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Half of a restore is never written into the ledger that was there, and none is told restored that is not."""
    from lab.adapters import postgresql_connection as module
    from lab.core.problem import Problems
    from lab.ledger import text

    lab = TestLab.make(tmp_path / "lab", FILES)
    assert lab("apply", "--yes").code == 0
    remote.save(tmp_path / "old.sqlite")
    lab.write("conf/file/more.yaml", "path: ROOT/out/more\ncontent: x\n")
    assert lab("apply", "--yes").code == 0
    insert, fill, commit = text.insert, module.Connection.fill, module.Connection.commit

    def cut_at(name: str) -> None:
        if name == when:
            assert drop_all(remote)

    monkeypatch.setattr(text, "insert", lambda t, table, found: (cut_at(table), insert(t, table, found)))
    monkeypatch.setattr(module.Connection, "fill", lambda self: (fill(self), cut_at("made")))
    monkeypatch.setattr(module.Connection, "commit", lambda self: (cut_at("committed"), commit(self)))
    with pytest.raises(Problems, match="the ledger cannot be used"):
        remote.take(tmp_path / "old.sqlite")
    monkeypatch.undo()
    monkeypatch.setattr(labs, "LEDGER", remote_url(remote))
    whole(lab, 7)


def test_a_connection_cut_while_a_ledger_is_copied_gives_no_copy_of_two_moments(
    tmp_path: Path, remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup's copy is of one moment, or is told to have failed."""
    from lab.core.problem import Problems
    from lab.ledger import text

    lab = TestLab.make(tmp_path / "lab", FILES)
    assert lab("apply", "--yes").code == 0
    rows, cuts = text.rows, []

    def cut(source: Any, table: str) -> Any:
        if table == "generation":
            cuts.append(drop_all(remote))
        return rows(source, table)

    monkeypatch.setattr(text, "rows", cut)
    with pytest.raises(Problems, match="the ledger cannot be used"):
        remote.save(tmp_path / "copy.sqlite")
    assert len(cuts) == 3


@pytest.mark.slow
def test_a_server_that_restarts_during_an_apply(tmp_path: Path, server: Server, remote: Any) -> None:
    """Stopped outright and started again: the apply waits, says so, and finishes."""
    files = {f"file/f{n:03}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(1500)}
    lab = TestLab.make(tmp_path / "lab", files)
    child = lab.child("apply", "--yes", "-q")
    until = time.monotonic() + 60
    while not (tmp_path / "lab/out").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    server.stop()
    time.sleep(1)
    server.start()
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, out + err
    whole(lab, 1500)


def test_a_server_that_stays_away(tmp_path: Path, server: Server, remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan says which server does not answer; an apply that loses it stops in words, and the next one finishes."""
    from lab.adapters import postgresql_connection as module

    monkeypatch.setattr(module, "PATIENCE", 0.5)
    lab = TestLab.make(tmp_path / "lab", FILES)
    begin, calls = module.Connection.begin, []

    def away(self: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            server.stop()
        begin(self)

    monkeypatch.setattr(module.Connection, "begin", away)
    try:
        ran = lab("apply", "--yes")
        assert ran.code == 1
        assert "went away and did not come back" in ran.out + ran.err
        told = lab("plan")
        assert told.code == 1
        assert f"postgresql://127.0.0.1:{server.port}/studies" in told.err
        assert "Traceback" not in ran.out + ran.err + told.err
    finally:
        server.start()
    assert lab("apply", "--yes").code == 0
    whole(lab, 6)


def test_one_writer_wherever_they_are(tmp_path: Path, remote: Any) -> None:
    """Another checkout of the lab is told who writes; a suspended writer keeps its lock, a killed one frees it."""
    files = {f"file/f{n:03}": f"path: {tmp_path}/out/{n}\ncontent: 'text {n}'\n" for n in range(600)}
    one, two = TestLab.make(tmp_path / "one", files), TestLab.make(tmp_path / "two", files)
    child = one.child("apply", "--yes")
    try:
        with closing(remote.connect()) as db:
            while not db.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchone():
                assert child.poll() is None
        os.kill(child.pid, signal.SIGSTOP)
        ran = two("apply", "--yes")
        assert ran.code == 1
        assert "`lab apply` of " in ran.err
        assert f"pid {child.pid}" in ran.err
        assert two("plan").code == 0  # reading never waits
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    until = time.monotonic() + 20
    while (ran := two("apply", "--yes")).code:
        assert time.monotonic() < until, ran
    whole(two, 600)


def test_a_lock_taken_meanwhile_stops_the_one_that_lost_it(tmp_path: Path, remote: Any) -> None:
    """The connection breaks, and somebody else writes before it is back: the first stops and overwrites nothing."""
    from lab.core.problem import Problems
    from lab.ledger.ledger import Ledger

    with remote.held("apply"):
        mine = Ledger.write(remote, "00000000-test")
        drop_all(remote)
        from lab.adapters.postgresql import Server as Remote

        other = Remote(remote_url(remote), "", "00000000-test", tell=lambda text: None)
        with other.held("apply"):
            theirs = Ledger.write(other, "00000000-test")
            with theirs.transaction():
                theirs.log(1, [("file.a", "create", "theirs", "", "")])
        with pytest.raises(Problems, match="somebody else wrote"), mine.transaction():
            mine.log(1, [("file.b", "create", "mine", "", "")])
    assert [row[0] for row in Ledger.read(remote, "00000000-test").sql("SELECT address FROM history")] == ["file.a"]


def remote_url(remote: Any) -> str:
    """The address that a server object was made of."""
    o = remote._options
    return f"postgresql://{o['user']}@{o['host']}:{o['port']}/{o['dbname']}"


@pytest.mark.slow
def test_a_restored_backup_leaves_the_servers_ledger_alone(tmp_path: Path, server: Server, remote: Any) -> None:
    """Files come back and drift is seen; the snapshot's ledger lies aside, and makes good a schema that was lost."""
    if not shutil.which("restic"):
        pytest.skip("needs restic")
    (tmp_path / "word").write_text("correct horse")
    backup = f"repo: {tmp_path}/repo\npassword: file:{tmp_path}/word\npaths: [ROOT/out]\n"
    lab = TestLab.make(tmp_path / "lab", {**FILES, "backup/b": backup})
    assert lab("apply", "--yes").code == 0
    assert lab("backup", "now").code == 0
    before = lab("state", "export").out
    lab.write("conf/file/f001.yaml", "path: ROOT/out/1\ncontent: later\n")
    assert lab("apply", "--yes").code == 0
    later = lab("state", "export").out
    said = lab("restore")
    assert said.code == 0, said
    assert "stays as it is" in said.out
    assert lab("state", "export").out == later
    assert not (lab.root / "state/ledger.sqlite").exists()
    plan = lab("plan").out
    assert "only the ledger is brought up to date: content: later → text 1" in plan, plan
    lab.write("conf/file/f001.yaml", "path: ROOT/out/1\ncontent: later\n")
    assert lab("apply", "--yes").code == 0
    assert (lab.root / "out/1").read_text() == "later"
    with closing(remote.connect()) as db:
        db.execute(f'DROP SCHEMA "{remote.schema}" CASCADE')
    gone = lab("plan")
    assert gone.code == 1
    assert "ledger" in gone.err
    held = str(lab.root / "state/backup/ledger-of-snapshot.sqlite")
    back = lab("state", "restore", held)
    assert back.code == 0, back
    resources = [x for x in lab("state", "export").out.splitlines() if x.startswith('{"resource"')]
    assert resources == [x for x in before.splitlines() if x.startswith('{"resource"')]
    assert lab("apply", "--yes").code == 0
    whole(lab, len(FILES) + 1)
