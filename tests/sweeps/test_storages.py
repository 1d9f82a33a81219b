"""The study may lie in SQLite, PostgreSQL or behind Optuna's proxy; a server that restarts loses nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgres import Server, free_port, serving
from tests.sweeps.conftest import Place
from tests.sweeps.kills import WORDS, killed


def load(found: Any, url: str) -> Any:
    """The study through Optuna alone."""
    import optuna

    return optuna.load_study(study_name=found["study"], storage=url)


def whole(study: Any, trials: int) -> None:
    """Exactly these trials, complete, each with its own value."""
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * trials
    assert all(t.value == (t.params["x"] - 1) ** 2 + (t.params["y"] + 2) ** 2 for t in study.trials)


def test_sqlite_by_name(place: Place) -> None:
    """A file beside the study; the same sweep goes on in it."""
    place.sweep(*WORDS, "--trials", "2", "--storage", "sqlite")
    found = place.sweep(*WORDS, "--trials", "4", "--storage", "sqlite")
    file = place.state / "sweeps" / "studies" / found["study"] / "study.db"
    whole(load(found, f"sqlite:///{file}"), 4)
    assert "4 complete of 4" in place.lab("sweep", "show", "trial")


def test_a_storage_that_is_not_there_is_told_without_its_password(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its address; no trial begins. The URL comes from the environment: in YAML a password is refused."""
    pytest.importorskip("psycopg")
    url = "postgresql://me:hunter2@127.0.0.1:9/x"
    refused = place.lab("sweep", *WORDS, "--trials", "2", "--storage", url, code=1)
    assert "does not belong here" in refused
    assert "hunter2" not in refused
    monkeypatch.setenv("STUDIES", url)
    out = place.lab("sweep", *WORDS, "--trials", "2", "--storage", "env:STUDIES", code=1)
    assert "postgresql://me@127.0.0.1:9/x cannot be opened" in out
    assert "hunter2" not in out
    assert not (place.state / "runs").exists()
    said = [p.read_bytes() for p in place.state.rglob("*") if p.is_file()]
    assert not any(b"hunter2" in s for s in said)


@pytest.mark.slow
def test_optunas_proxy(place: Place) -> None:
    """A server over a journal; the sweep speaks to it alone."""
    pytest.importorskip("grpc")
    port, log = free_port(), place.root / "served.log"
    code = (
        "import optuna; from optuna.storages import journal as j;"
        f"s = optuna.storages.JournalStorage(j.JournalFileBackend({str(log)!r}));"
        f"optuna.storages.run_grpc_proxy_server(s, host='127.0.0.1', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        reachable(port)
        found = place.sweep(*WORDS, "--trials", "4", "--parallel", "2", "--storage", f"grpc://127.0.0.1:{port}")
        assert found["complete"] == 4
    finally:
        server.kill()
        server.wait()
    import optuna

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(log)))
    whole(optuna.load_study(study_name=found["study"], storage=storage), 4)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that ends with the test."""
    with serving() as made:
        yield made


@pytest.mark.slow
def test_postgresql_that_restarts_in_mid_sweep(place: Place, server: Server) -> None:
    """200 trials, 4 at once, killed 20 times; midway the server is killed outright, and back after two seconds."""
    pytest.importorskip("psycopg")

    def restart() -> None:
        server.stop()
        time.sleep(2)
        server.start()

    import optuna

    url = server.url.replace("postgresql://", "postgresql+psycopg://")
    killed(
        place,
        ("--storage", server.url),
        trials=200,
        workers=4,
        kills={"coordinator": 6, "supervisor": 7, "child": 7},
        seed=2,
        midway=restart,
        study=lambda name: optuna.load_study(study_name=name, storage=url),
    )


def reachable(port: int) -> None:
    """Until somebody listens there."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on {port}")
