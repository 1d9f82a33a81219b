"""A web server that misbehaves on demand: a plain file server, a hub, an Ollama registry and a release API in one.

Knobs are per file name in `faults`, each used as often as its list says: `cut:N` drops the connection after N bytes,
`stall:N` sends N bytes and then nothing, `lie:N` claims N bytes more than there are, `flip` alters a byte of the body,
`error:CODE` answers so, `short:N` sends only N bytes with a true-looking length. `log` records every request.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LFS_OVER = 10_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Server:
    """Serves `root`: plain files, hub repositories under `root/OWNER/NAME`, registries and releases beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: dict[str, list[str]] = {}
        self.ignore_range = False
        self.etags: dict[str, str] = {}
        self.gated: set[str] = set()
        self.token = ""
        self.throttle = 0.0
        self.page = 1000
        self.routes: dict[str, Any] = {}
        self.redirect: dict[str, str] = {}
        self.log: list[tuple[str, str, str | None, int]] = []
        self.seen: list[dict[str, str]] = []
        self.sent = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                outer.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *a: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def gets(self, name: str) -> list[tuple[str | None, int]]:
        """Range and status of every GET of a file."""
        return [(r, c) for m, p, r, c in self.log if m == "GET" and p.rpartition("/")[2] == name]

    def commit(self, repository: str) -> str:
        text = "".join(f"{n}:{sha256(b)}\n" for n, b in self.contents(repository).items())
        return hashlib.sha1(text.encode()).hexdigest()

    def contents(self, repository: str) -> dict[str, bytes]:
        top = self.root / repository
        return {f.relative_to(top).as_posix(): f.read_bytes() for f in sorted(top.rglob("*")) if f.is_file()}

    def tree(self, repository: str) -> list[dict[str, Any]]:
        out = []
        for name, data in self.contents(repository).items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": oid(data)}
            if len(data) > LFS_OVER:
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            out.append(entry)
        return out

    def send(self, h: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> None:
        self.log.append((h.command, h.path, h.headers.get("Range"), code))
        h.send_response(code)
        for k, v in headers.items():
            h.send_header(k.replace("_", "-"), v)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        if h.command != "HEAD":
            h.wfile.write(body)

    def json(self, h: BaseHTTPRequestHandler, value: Any, **headers: str) -> None:
        self.send(h, 200, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def answer(self, h: BaseHTTPRequestHandler) -> None:
        self.seen.append({"path": h.path, **dict(h.headers.items())})
        parts = urllib.parse.urlsplit(h.path)
        path = urllib.parse.unquote(parts.path)
        if path in self.redirect:
            return self.send(h, 302, Location=self.redirect[path])
        if path in self.routes:
            value = self.routes[path]
            if isinstance(value, bytes):
                return self.blob(h, path, value, {})
            return self.json(h, value)
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            return self.api(h, m[1], m[2], m[3], urllib.parse.parse_qs(parts.query))
        if m := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if m[1] in self.gated and h.headers.get("Authorization") != f"Bearer {self.token}":
                return self.send(h, 403, X_Error_Code="GatedRepo", X_Error_Message="Access to it is restricted.")
            if m[2] not in ("main", self.commit(m[1])):
                return self.send(h, 404, X_Error_Code="RevisionNotFound")
            path = f"/{m[1]}/{m[3]}"
            file = self.root / path[1:]
            if not file.is_file():
                return self.send(h, 404, X_Error_Code="EntryNotFound")
            data = file.read_bytes()
            etag = sha256(data) if len(data) > LFS_OVER else oid(data)
            extra = {"X-Repo-Commit": self.commit(m[1]), "ETag": f'"{etag}"'}
            if len(data) > LFS_OVER:
                extra |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
            return self.blob(h, path, data, extra)
        file = self.root / path[1:]
        if file.is_file():
            data = file.read_bytes()
            return self.blob(h, path, data, {"ETag": self.etags.get(file.name, f'"{sha256(data)}"')})
        return self.send(h, 404)

    def api(self, h: BaseHTTPRequestHandler, repo: str, what: str | None, revision: str | None, query: Any) -> None:
        if not (self.root / repo).is_dir():
            return self.send(h, 404, b"{}", X_Error_Code="RepoNotFound")
        if revision not in (None, "main", self.commit(repo)):
            return self.send(h, 404, b"{}", X_Error_Code="RevisionNotFound")
        if what == "tree":
            start = int(query.get("cursor", ["0"])[0])
            tree = self.tree(repo)
            more = {}
            if start + self.page < len(tree):
                link = f"{self.url}/api/models/{repo}/tree/{revision}?recursive=true&cursor={start + self.page}"
                more = {"Link": f'<{link}>; rel="next"'}
            return self.json(h, tree[start : start + self.page], **more)
        siblings = [{"rfilename": e["path"]} for e in self.tree(repo)]
        gated: Any = "manual" if repo in self.gated else False
        card = {"license": "apache-2.0"}
        about = {"id": repo, "modelId": repo, "sha": self.commit(repo), "private": False, "gated": gated, "tags": []}
        return self.json(h, {**about, "cardData": card, "downloads": 0, "siblings": siblings})

    def blob(self, h: BaseHTTPRequestHandler, path: str, data: bytes, headers: dict[str, str]) -> None:
        name = path.rpartition("/")[2]
        start, code, whole = 0, 200, len(data)
        wanted = h.headers.get("Range")
        condition = h.headers.get("If-Range")
        if wanted and not self.ignore_range and (condition is None or condition == headers.get("ETag")):
            m = re.match(r"bytes=(\d+)-(\d*)", wanted)
            assert m
            start = int(m[1])
            if start >= whole:
                return self.send(h, 416, Content_Range=f"bytes */{whole}")
            data = data[start : int(m[2]) + 1 if m[2] else None]
            code, headers = 206, {**headers, "Content-Range": f"bytes {start}-{start + len(data) - 1}/{whole}"}
        faults = self.faults.get(name) or []
        fault, _, value = (faults.pop(0) if faults and h.command == "GET" else "").partition(":")
        number = int(value or 0)
        if fault == "error":
            return self.send(h, number)
        if fault == "flip":
            data = data[:10] + bytes([data[10] ^ 0xFF]) + data[11:]
        if fault == "short":
            data = data[:number]
        self.log.append((h.command, h.path, wanted, code))
        h.send_response(code)
        for k, v in headers.items():
            h.send_header(k, v)
        h.send_header("Content-Length", str(len(data) + (number if fault == "lie" else 0)))
        h.end_headers()
        if h.command == "HEAD":
            return None
        step = 1 << 14
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            if fault in ("cut", "stall") and at + len(piece) > number:
                h.wfile.write(piece[: max(0, number - at)])
                h.wfile.flush()
                if fault == "stall":
                    time.sleep(5)
                h.close_connection = True
                h.connection.shutdown(socket.SHUT_RDWR)
                return None
            h.wfile.write(piece)
            self.sent += len(piece)
            if self.throttle:
                time.sleep(self.throttle)
        if fault == "lie":
            h.close_connection = True
        return None


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    server = Server(root)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


if __name__ == "__main__":
    import sys

    alone = Server(Path(sys.argv[1]))
    alone.throttle = float(sys.argv[2]) if len(sys.argv) > 2 else 0
    print(alone.url, flush=True)
    alone.http.serve_forever()
