"""Two gigabytes arrive whole over a connection that drops and a `lab` that is killed, and nearly nothing is sent twice.

Proves S3-VI.2-1.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MB = 1 << 20
SIZE = 2048 * MB
NOISE = random.Random(3).randbytes(MB - 8)


def block(n: int) -> bytes:
    """The n-th megabyte of the file: no two are equal, so none can stand for another."""
    return n.to_bytes(8, "big") + NOISE


class Source(ThreadingHTTPServer):
    """Serves the file, range by range; drops the first connection after `cut` bytes, and counts what it sends."""

    daemon_threads = True

    def __init__(self, cut: int) -> None:
        self.cut = cut
        self.sent = 0
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Source
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        """The bytes from the asked one on."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")
        assert asked
        start = int(asked[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(SIZE - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{SIZE - 1}/{SIZE}")
        self.end_headers()
        for n in range(start // MB, SIZE // MB):
            if self.server.cut and self.server.sent >= self.server.cut:
                self.server.cut, self.close_connection = 0, True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            data = block(n)[start % MB if n == start // MB else 0 :]
            self.wfile.write(data)
            self.server.sent += len(data)


@pytest.fixture
def source() -> Iterator[Source]:
    """The server, for one test."""
    made = Source(cut=600 * MB)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.slow
def test_two_gigabytes_survive_a_dropped_connection_and_a_kill(tmp_path: Path, source: Source) -> None:
    """Dropped at 600 MB, killed beyond 1.2 GB: the next apply finishes, the hash is right, at most 1.1 sizes sent."""
    if shutil.disk_usage(tmp_path).free < 3 * SIZE:
        pytest.skip("there is no room for two gigabytes here")
    right = hashlib.sha256()
    for n in range(SIZE // MB):
        right.update(block(n))
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/lab.yaml").write_text(f"lab: {{name: t, id: 00000000-large, store: {tmp_path / 'store'}}}\n")
    url = f"http://127.0.0.1:{source.server_address[1]}/big.bin"
    (tmp_path / "conf/model/big.yaml").write_text(
        f"url: {url}\nsha256: {right.hexdigest()}\nsize: {SIZE}\nallow_pickle: true\n"
    )
    words = [sys.executable, "-m", "lab", "-C", str(tmp_path), "apply", "--yes"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        first = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while source.sent < 1200 * MB:
            assert first.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert source.cut == 0, "the connection had been dropped before"
        assert source.sent < SIZE
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        blob = tmp_path / "store/blobs/sha256" / right.hexdigest()[:2] / right.hexdigest()
        with open(blob, "rb") as f:
            assert hashlib.file_digest(f, "sha256").hexdigest() == right.hexdigest()
        assert SIZE <= source.sent < 1.1 * SIZE
    finally:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
