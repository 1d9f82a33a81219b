"""Which PostgreSQL server a ledger is on, who one is there, and what its databases are like."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import labs
from tests.labs import TestLab
from tests.postgres import Server

pytest.importorskip("psycopg")
pytestmark = pytest.mark.usefixtures("remote")
FILES = {"file/a": "path: ROOT/out/a\ncontent: a\n"}


def test_a_password_is_nowhere(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for, used, and in nothing that Lab writes or prints; in YAML it is refused without being repeated."""
    secret = "hunter2-ledger-canary"
    with closing(__import__("psycopg").connect(server.url, autocommit=True)) as db:
        db.execute(f"DROP ROLE IF EXISTS keeper; CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{secret}'")
    hba = server.folder / "db/pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"host all keeper 127.0.0.1/32 scram-sha-256\n{before}")
    server.call("pg_ctl", "-D", str(server.folder / "db"), "reload")
    url = server.url.replace("lab@", "keeper@")
    monkeypatch.setattr(labs, "LEDGER", "{url: '" + url + "', password: 'env:KEEPER'}")
    monkeypatch.setenv("KEEPER", secret)
    try:
        lab = TestLab.make(tmp_path / "lab", FILES)
        said = lab("apply", "--yes", "--json-events")
        assert said.code == 0, said
        written = [p for p in (tmp_path / "lab").rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
        assert not written
        told = [said, lab("plan"), lab("state", "check"), lab("state", "export"), lab("doctor"), lab("plan", "--json")]
        monkeypatch.setenv("KEEPER", secret + "-wrong")
        monkeypatch.setenv("LAB_DEBUG", "1")
        wrong = lab("plan")
        assert wrong.code == 1
        assert "password authentication failed" in wrong.err
        monkeypatch.setattr(labs, "LEDGER", url.replace("keeper@", f"keeper:{secret}@"))
        refused = TestLab.make(tmp_path / "lab", FILES)("plan")
        assert refused.code == 1
        assert "conf/lab.yaml:1" in refused.err
        assert "a password does not belong here" in refused.err
        assert not any(secret in r.out + r.err for r in [*told, wrong, refused])
    finally:
        hba.write_text(before)
        server.call("pg_ctl", "-D", str(server.folder / "db"), "reload")


def test_offline_asks_no_server_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`offline: true` takes a server on this machine and no other."""
    lab = TestLab.make(tmp_path / "near", FILES, head="offline: true\n")
    assert lab("apply", "--yes").code == 0
    monkeypatch.setattr(labs, "LEDGER", "postgresql://lab@db.invalid/x")
    far = TestLab.make(tmp_path / "far", FILES, head="offline: true\n")
    assert "another host, and the lab is offline" in far("plan").err


def test_a_database_of_no_encoding(
    tmp_path: Path, server: Server, remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `initdb` makes where the locale is C: its texts are texts, whatever letters they hold."""
    with closing(remote.connect()) as db:
        db.execute("DROP DATABASE IF EXISTS plain")
        db.execute("CREATE DATABASE plain TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    monkeypatch.setattr(labs, "LEDGER", server.url.replace("/studies", "/plain"))
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/out/a\ncontent: 模型 ⏎ ü\n"})
    assert lab("apply", "--yes").code == 0
    assert "No changes" in lab("plan").out
    assert "模型 ⏎ ü" in lab("state", "show", "file.a").out
