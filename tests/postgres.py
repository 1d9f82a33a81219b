"""A real PostgreSQL server in a folder of its own, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


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


@contextmanager
def serving() -> Iterator[Server]:
    """A server that is gone afterwards."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    try:
        made = Server(folder)
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
