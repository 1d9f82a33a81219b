"""Live: a run's log and curves in a browser while it runs, as server-sent events on loopback.

    GET /runs/RUN                        the page
    GET /api/v1/runs/RUN/logs            each line it prints, as it prints it; `Last-Event-ID` goes on after a break
    GET /api/v1/runs/RUN/metrics         each point it logs: step, metric, value

Every address needs the key that was printed once: other users of the machine reach loopback as well.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from lab.runs.folder import ACTIVE, RunFolder, parse

EVERY = 0.1
"""Seconds between two looks at a run's files."""


class Server(ThreadingHTTPServer):
    """Serves the runs below one state folder; `url(run)` is the page's address."""

    daemon_threads = True

    def __init__(self, state: Path, port: int = 0) -> None:
        self.state = state
        self.key = secrets.token_urlsafe(16)
        super().__init__(("127.0.0.1", port), _Handler)

    def url(self, run: str) -> str:
        """Where a browser finds the run."""
        return f"http://127.0.0.1:{self.server_address[1]}/runs/{run}?key={self.key}"


def lines(folder: RunFolder, file: str, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file of the run as they come, each with the offset after it, until the run has ended.

    An empty line with the same offset is given while nothing comes, so that a listener who left is noticed.
    """
    rest, told = b"", time.monotonic()
    while True:
        ended = folder.state() not in ACTIVE
        try:
            with open(folder / file, "rb") as f:
                f.seek(at + len(rest))
                rest += f.read()
        except FileNotFoundError:
            pass
        *whole, rest = rest.split(b"\n")
        for line in whole:
            at += len(line) + 1
            yield at, line
        if ended:
            if rest:
                yield at + len(rest), rest
            return
        if time.monotonic() - told > 5:
            told = time.monotonic()
            yield at, b""
        time.sleep(EVERY)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    kinds: ClassVar[dict[str, str]] = {"logs": "output.log", "metrics": "metrics.jsonl"}

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        key = parse_qs(asked.query).get("key", [""])[0]
        # A page of another site that has its name resolve to loopback names that site here.
        host = str(self.headers.get("Host", "")).partition(":")[0]
        if not hmac.compare_digest(key, self.server.key) or host not in ("127.0.0.1", "localhost"):
            return self.send_error(403, "the key that `lab logs --page` printed is missing")
        match asked.path.strip("/").split("/"):
            case ["runs", run] if self._known(run):
                return self._page(run)
            case ["api", "v1", "runs", run, what] if what in self.kinds and self._known(run):
                return self._stream(RunFolder(self.server.state / "runs" / run), what)
        return self.send_error(404)

    def _known(self, run: str) -> bool:
        return run not in (".", "..") and (self.server.state / "runs" / run / "spec.json").is_file()

    def _page(self, run: str) -> None:
        body = (Path(__file__).with_name("live.html").read_text(encoding="utf-8")).replace("RUN_ID", run).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, folder: RunFolder, what: str) -> None:
        since = str(self.headers.get("Last-Event-ID") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            for at, line in lines(folder, self.kinds[what], int(since) if since.isdigit() else 0):
                data = self._event(line, what)
                self.wfile.write(f"id: {at}\ndata: {data}\n\n".encode() if data is not None else b": nothing\n\n")
                self.wfile.flush()
            end = json.dumps({"state": folder.state(), "reason": folder.result.get("reason", "")})
            self.wfile.write(f"event: end\ndata: {end}\n\n".encode())
        except OSError:
            return  # whoever listened is gone

    @staticmethod
    def _event(line: bytes, what: str) -> str | None:
        if what == "logs":
            return line.decode(errors="replace").replace("\r", " ") if line else None
        point = parse(line) if line else None
        return None if point is None else json.dumps({"step": point[0], "values": point[2]})

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed: the terminal is the user's."""
