"""The study may lie in SQLite, PostgreSQL or behind Optuna's proxy; a server that restarts loses nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


class Server:
    """A PostgreSQL server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.bin = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/nowhere"))
        if not (self.bin / "initdb").exists():
            pytest.skip("needs PostgreSQL's server (apt install postgresql)")
        self.user: dict[str, Any] = {}
        if os.getuid() == 0:
            try:
                who = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("needs the account postgres")
            os.chown(folder, who.pw_uid, who.pw_gid)
            self.user = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
        self.call("initdb", "-D", str(folder / "db"), "-A", "trust", "-U", "lab", "--no-sync")
        self.start()
        self.call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "lab", "studies")

    @property
    def url(self) -> str:
        """As `storage:` takes it."""
        return f"postgresql://lab@127.0.0.1:{self.port}/studies"

    def call(self, name: str, *args: str) -> None:
        """One of its programs has ended well."""
        subprocess.run([self.bin / name, *args], check=True, capture_output=True, cwd="/", **self.user)

    def start(self) -> None:
        """It answers."""
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1"
        log = str(self.folder / "log")
        args = [self.bin / "pg_ctl", "-D", self.folder / "db", "-o", options, "-l", log, "-w", "start"]
        subprocess.run(args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self.user)

    def stop(self) -> None:
        """It is gone, whoever was connected."""
        self.call("pg_ctl", "-D", str(self.folder / "db"), "-m", "immediate", "-w", "stop")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that ends with the test."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    made = Server(folder)
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


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


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def reachable(port: int) -> None:
    """Until somebody listens there."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on {port}")
