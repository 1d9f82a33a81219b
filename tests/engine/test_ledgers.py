"""The ledger is the same wherever it is kept: in a file, or on a real PostgreSQL server."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lab.core.address import Address
from lab.core.problem import Problems
from lab.core.record import Record
from lab.ledger import generations, schema
from lab.ledger.ledger import Ledger, altered
from lab.ledger.place import Place
from lab.ledger.sqlite import File
from tests import labs
from tests.labs import TestLab
from tests.postgres import Server, serving

ID = "00000000-test"
FILES = {f"file/f{n}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(4)}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for this module."""
    pytest.importorskip("psycopg")
    with serving() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty place of each sort; labs that the test makes keep their ledger there too."""
    if request.param == "sqlite":
        yield File(tmp_path / "lab/state/ledger.sqlite")
        return
    from lab.adapters.postgresql import Server as Remote

    server: Server = request.getfixturevalue("server")
    monkeypatch.setattr(labs, "LEDGER", server.url)
    found = Remote(server.url, "", ID)
    with closing(found.connect()) as db:
        db.execute(f'DROP SCHEMA IF EXISTS "{found.schema}" CASCADE')
    yield found


def record(name: str, **given: object) -> Record:
    """A record with odd text in it."""
    return Record(Address(f"file.{name}"), "d1", "c1", '{"a": "ü☃\\n%s ?"}', "{}", "{}", at=1.25, **given)  # type: ignore[arg-type]


def test_rows_come_back_as_they_were_written(place: Place) -> None:
    """Records, journal, history and generations; sorted by bytes; nothing from a torn transaction."""
    assert Ledger.read(place, ID).records() == {}
    with place.held("apply"), closing(Ledger.write(place, ID)) as ledger:
        number = generations.begin(
            ledger, generations.Origin("rev", "", "p", ("a=1",)), "apply", {Address("file.a"): {}}
        )
        with ledger.transaction():
            ledger.put([record(n) for n in ("b", "B", "ä", "a-b", "a_b")])
            ledger.put([record("b", pending=True, protect=True)])
        with contextlib.suppress(ZeroDivisionError), ledger.transaction():
            ledger.put([record("never")])
            raise ZeroDivisionError
        ledger.begin_step("file.b", 0, "d1", "write it", number)
        ledger.begin_step("file.b", 0, "d1", "write it", number)
        assert ledger.finished_steps("file.b", "d1") == {}
        ledger.end_step("file.b", 0, {"bytes": 3})
        assert ledger.finished_steps("file.b", "d1") == {0: ("write it", {"bytes": 3})}
        with ledger.transaction():
            ledger.log(number, [("file.b", "create", "new", "", "d1")])
        generations.finish(ledger, number, {"create": 1}, "done")
    with closing(Ledger.read(place, ID)) as ledger:
        assert [a.name for a in ledger.records()] == ["B", "a-b", "a_b", "b", "ä"]
        assert ledger.record("file.b") == record("b", pending=True, protect=True)
        assert ledger.record("file.never") is None
        assert ledger.serial == 7
        assert altered(ledger) == []
        (made,) = generations.generations(ledger, 1)
        assert (made.outcome, made.summary, made.origin.overrides) == ("done", {"create": 1}, ("a=1",))
        assert generations.declared_at(ledger, 1) == {Address("file.a"): {}}
        assert generations.history(ledger, address="file.b")[0]["reason"] == "new"
        assert generations.history(ledger, number=1)[0]["address"] == "file.b"


def test_another_lab_and_a_newer_schema_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in words; nothing is written."""
    with place.held("apply"):
        Ledger.write(place, ID).close()
        with pytest.raises(Problems, match="belongs to another lab"):
            Ledger.write(place, "11111111-other")
        monkeypatch.setattr(schema, "VERSION", 0)
        with pytest.raises(Problems, match="newer Lab"):
            Ledger.write(place, ID)
    with pytest.raises(Problems, match="newer Lab"):
        Ledger.read(place, ID)


def test_an_older_ledger_is_migrated_with_its_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward by every step there is; a step that fails leaves the version before."""
    with place.held("apply"), closing(Ledger.write(place, ID)) as ledger, ledger.transaction():
        ledger.put([record("a")])
    monkeypatch.setattr(schema, "VERSION", 3)
    steps = {
        1: "CREATE TABLE extra (n INTEGER NOT NULL);",
        2: "INSERT INTO extra VALUES (7); SELECT wrong FROM nothing;",
    }
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with place.held("apply"), pytest.raises(Problems):
        Ledger.write(place, ID)
    steps[2] = "INSERT INTO extra VALUES (7);"
    with place.held("apply"), closing(Ledger.write(place, ID)) as ledger:
        assert ledger.sql("SELECT n FROM extra") == [(7,)]
        assert ledger.record("file.a") == record("a")
        assert ledger._connection().version() == 3


def test_a_changed_row_is_seen_and_the_last_copy_is_restored(place: Place, tmp_path: Path) -> None:
    """`state check` names the row, `state restore` says what is lost, and the next apply completes."""
    lab = TestLab.make(tmp_path / "lab", FILES)
    assert lab("apply", "--yes").code == 0
    lab.write("conf/file/f1.yaml", "path: ROOT/out/1\ncontent: newer\n")
    shelf = tmp_path / "lab/state/backup"
    first = tmp_path / "first.sqlite"
    next(shelf.iterdir()).rename(first)
    assert lab("apply", "--yes").code == 0
    with place.held("test"):
        db = place.write()
        db.begin()
        db.execute("UPDATE resource SET facts = ? WHERE address = ?", ('{"content": "forged"}', "file.f2"))
        db.commit()
        db.close()
    checked = lab("state", "check")
    assert checked.code == 1
    assert "the record of file.f2 was altered" in checked.err
    restored = lab("state", "restore", str(first))
    assert restored.code == 0, restored
    assert "lost: file.f1" in restored.out
    assert lab("state", "check").code == 0
    assert "file.f1" in lab("plan").out
    assert lab("apply", "--yes").code == 0
    assert lab("plan", "--detailed-exitcode").code == 0


def test_out_as_text_and_in_again(place: Place, tmp_path: Path) -> None:
    """The same rows come out again; what is cut, altered or another lab's is refused, and nothing is taken."""
    lab = TestLab.make(tmp_path / "lab", FILES)
    assert lab("apply", "--yes").code == 0
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    assert lab("state", "export", str(out)).code == 0
    assert lab("state", "export").out == out.read_text()
    lines = out.read_text().splitlines(keepends=True)
    assert json.loads(lines[0])["lab_ledger"]["lab"] == ID
    assert sum('"resource"' in line[:12] for line in lines) == 4
    lab.write("conf/file/f9.yaml", "path: ROOT/out/9\ncontent: nine\n")
    assert lab("apply", "--yes").code == 0
    bad = tmp_path / "bad.jsonl"
    wrong = [
        lines[:-1],
        lines[1:],
        [*lines[:3], *lines[4:]],
        ["[]\n"],
        ["{}\n"],
        [],
        [x.replace("text", "t3xt") for x in lines],
    ]
    for harmed in wrong:
        bad.write_text("".join(harmed))
        refused = lab("state", "import", str(bad))
        assert refused.code == 1
        assert "cannot be taken" in refused.err
        assert "file.f9" in lab("state", "list").out
    taken = lab("state", "import", str(out))
    assert taken.code == 0, taken
    assert "holds the 4 records" in taken.out
    assert "lost: file.f9" in taken.out
    assert lab("state", "check").code == 0
    assert lab("state", "export", str(again)).code == 0
    assert again.read_text() == out.read_text()
    assert lab("sql", "SELECT count(*) FROM resources").out.split()[-1] == "4"
    assert "adopted" in lab("apply", "--yes").err  # it was still there, and nobody knew of it any more
    assert lab("plan", "--detailed-exitcode").code == 0


def test_a_copy_goes_from_one_place_to_the_other(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lab begun in a file moves to a server and back with everything it knew."""
    from lab.adapters.postgresql import Server as Remote

    remote = Remote(server.url, "", ID)
    with closing(remote.connect()) as db:
        db.execute(f'DROP SCHEMA IF EXISTS "{remote.schema}" CASCADE')
    lab = TestLab.make(tmp_path / "lab", FILES)
    assert lab("apply", "--yes").code == 0
    out = tmp_path / "out.jsonl"
    assert lab("state", "export", str(out)).code == 0
    monkeypatch.setattr(labs, "LEDGER", server.url)
    TestLab.make(tmp_path / "lab")
    assert "missing" in lab("plan").err  # it is not there yet, and the stamp knows
    assert lab("state", "import", str(out)).code == 0
    assert lab("plan", "--detailed-exitcode").code == 0
    lab.write("conf/file/f1.yaml", "path: ROOT/out/1\ncontent: newer\n")
    assert lab("apply", "--yes").code == 0
    copy = tmp_path / "copy.sqlite"
    assert lab("state", "backup", str(copy)).code == 0
    monkeypatch.setattr(labs, "LEDGER", "")
    TestLab.make(tmp_path / "lab")
    assert lab("state", "restore", str(copy)).code == 0
    assert lab("plan", "--detailed-exitcode").code == 0
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT count(*) FROM generation").fetchone() == (2,)
