"""A canary as a token through each protocol that models come by: no byte of it stays, and no other host is told it.

Also what a password written into an address comes to, and that the search can fail.
"""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.canary import CANARY, CANARY_PLAIN, Ground, given, leaks, reference, told
from tests.models import make
from tests.models.servers import Server, serving, sha256

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="processes are read from /proc")

# --- models, by every protocol ---------------------------------------------------------------------------------------


def tiny(server: Server, kind: str) -> str:
    """What a model's declaration says of its source; the server has it."""
    server.root.mkdir(exist_ok=True)
    make.gguf(server.root / "tiny.gguf")
    data = (server.root / "tiny.gguf").read_bytes()
    if kind == "hub":
        make.safetensors(server.root / "o/tiny")
        return f"hub: o/tiny\nendpoint: {server.url}\n"
    if kind == "modelscope":
        file = {"Path": "tiny.gguf", "Size": len(data), "Sha256": sha256(data), "Type": "blob"}
        server.routes["/api/v1/models/o/tiny/repo/files"] = {"Data": {"Files": [file]}}
        server.routes["/api/v1/models/o/tiny/repo"] = data
        return f"hub: o/tiny\nendpoint: {server.url}/modelscope\n"
    if kind == "ollama":
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{sha256(data)}"}
        server.routes["/v2/library/tiny/manifests/latest"] = {"layers": [{**layer, "size": len(data)}]}
        server.routes[f"/v2/library/tiny/blobs/sha256:{sha256(data)}"] = data
        return f"ollama: tiny\nendpoint: {server.url}\n"
    if kind == "release":
        asset = {"name": "tiny.gguf", "size": len(data), "browser_download_url": f"{server.url}/tiny.gguf"}
        server.routes["/repos/o/tiny/releases/tags/v1"] = {"tag_name": "v1", "assets": [asset]}
        return f"release: o/tiny\ntag: v1\nendpoint: {server.url}\n"
    return f"url: {server.url}/tiny.gguf\nsha256: {sha256(data)}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "source"),
    [("url", "env"), ("hub", "file"), ("modelscope", "env"), ("ollama", "command"), ("release", "env")],
)
def test_a_models_token(tmp_path: Path, kind: str, source: str) -> None:
    """It reaches the source's own server, also where that refuses, and is in no lock, meta file or message."""
    with serving(tmp_path / "served") as server:
        about = tiny(server, kind) + f"token: {reference(source, tmp_path / 'held')}\n"
        ground = Ground(tmp_path / "g", {"model/m": about}, [CANARY], **given(source))
        told(ground, ("lock",), ("apply", "--yes", "--json-events"))
        sent = [s for s in server.seen if s.get("Authorization") == f"Bearer {CANARY}"]
        assert sent
        server.routes.clear()
        server.root.rename(tmp_path / "away")
        told(ground, ("lock",), ("destroy", "--all", "--yes"), ("gc", "--yes"), fine=(0, 1))


@contextmanager
def moved(server: Server) -> Iterator[Server]:
    """Another host that has the same, to which every request to `server` is redirected but the first of each list."""
    with serving(server.root) as other:
        other.routes = server.routes
        yield other


@pytest.mark.parametrize("kind", ["url", "hub", "modelscope", "ollama", "release"])
def test_another_host_is_told_no_token(tmp_path: Path, kind: str) -> None:
    """Neither after a redirect, nor where a list's next page, an asset or the lock names it."""
    with serving(tmp_path / "served") as server, moved(server) as other:
        about = tiny(server, kind) + "token: env:CANARY\n"
        ground = Ground(tmp_path / "g", {"model/m": about}, [CANARY], CANARY=CANARY)
        if kind == "hub":
            plain = server.json

            def paged(h: Any, value: Any, **headers: str) -> None:
                if isinstance(value, list):
                    headers["Link"] = f'<{other.url}{h.path}&more=1>; rel="next"'
                plain(h, value, **headers)

            server.json = paged  # type: ignore[method-assign]
        else:
            old = server.answer

            def away(h: Any) -> None:
                server.seen.append({"path": h.path, **dict(h.headers.items())})
                server.send(h, 302, Location=other.url + h.path)

            server.answer = away if kind != "release" else old  # type: ignore[method-assign]
            for asset in (server.routes.get("/repos/o/tiny/releases/tags/v1") or {}).get("assets", ()):
                asset["browser_download_url"] = f"{other.url}/tiny.gguf"
        locked = ground.run("lock")
        assert locked.code == 0, locked
        lock = ground.lab.root / "conf/lock/model/m.yaml"
        lock.write_text(lock.read_text().replace(server.url, other.url))
        ground.run("apply", "--yes")
        assert any(s.get("Authorization") for s in server.seen)
        assert other.seen
        assert [s for s in other.seen if CANARY in str(s)] == []


def test_a_list_of_files_ends(tmp_path: Path) -> None:
    """A hub whose pages lead in a circle, or on and on, is a problem."""
    with serving(tmp_path / "served") as server:
        about = tiny(server, "hub")
        plain, asked = server.json, [0]

        def endless(h: Any, value: Any, **headers: str) -> None:
            asked[0] += 1
            headers["Link"] = f'<{server.url}{h.path.partition("&")[0]}&more={asked[0]}>; rel="next"'
            plain(h, value, **headers)

        server.json = endless  # type: ignore[method-assign]
        ground = Ground(tmp_path / "g", {"model/m": about}, [])
        ran = ground.run("lock")
        assert "does not end" in ran.err + ran.out, ran


@pytest.mark.parametrize("how", ["TOKEN", "PASSWORD"])
def test_a_trackers_redirect_is_told_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """MLflow's own variables are sent to its server, and not to where that leads."""
    from lab.adapters import mlflow_remote

    monkeypatch.setenv(f"MLFLOW_TRACKING_{how}", CANARY_PLAIN)
    if how == "PASSWORD":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    with serving(tmp_path) as server, serving(tmp_path) as other:
        path = "/api/2.0/mlflow/runs/get"
        other.routes[path] = {"run": 1}
        server.redirect[path] = other.url + path
        assert mlflow_remote.call(server.url, "runs/get") == {"run": 1}
        assert "Authorization" in server.seen[0]
        assert "Authorization" not in other.seen[0]


# --- git -------------------------------------------------------------------------------------------------------------


class Git(http.server.BaseHTTPRequestHandler):
    """git's own http backend over a folder of repositories, for who sends the token."""

    protocol_version = "HTTP/1.0"
    seen: list[tuple[str, str]]
    root: Path
    to: str

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization") or ""))
        if self.to:
            self.send_response(301)
            self.send_header("Location", self.to + self.path)
            self.end_headers()
            return
        if self.headers.get("Authorization") != f"Bearer {CANARY}":
            self.send_response(401)
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        env = {
            "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command,
            "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "PATH": os.environ["PATH"],
        }  # fmt: skip
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            env["HTTP_CONTENT_ENCODING"] = "gzip"
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=True).stdout
        head, _, rest = done.partition(b"\r\n\r\n")
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" + head + b"\r\n\r\n" + rest)

    do_POST = do_GET


@contextmanager
def git_server(root: Path, to: str = "") -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Its address, and what was asked of it: path and Authorization."""
    handler = type("Handler", (Git,), {"seen": [], "root": root, "to": to})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """A folder with one repository, which holds a model."""
    work = tmp_path / "repositories/tiny.git"
    make.safetensors(work)
    for words in (("init", "-q"), ("add", "-A"), ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x")):
        subprocess.run(["git", "-C", str(work), *words], check=True)
    return work.parent


@pytest.mark.slow
@pytest.mark.parametrize("source", ["env", "file"])
def test_a_git_token(tmp_path: Path, repositories: Path, source: str) -> None:
    """git is told it through its environment, for the one server."""
    with git_server(repositories) as (url, seen):
        about = f"git: {url}/tiny.git\nrevision: HEAD\ntoken: {reference(source, tmp_path / 'held')}\n"
        ground = Ground(tmp_path / "g", {"model/m": about}, [CANARY], **given(source))
        told(ground, ("lock",), ("apply", "--yes", "--json-events"))
        assert seen
        assert {token for _, token in seen} == {f"Bearer {CANARY}"}


def test_git_sends_no_token_after_a_redirect(tmp_path: Path, repositories: Path) -> None:
    """It is refused, and told."""
    with git_server(repositories) as (other, asked), git_server(repositories, other) as (url, _):
        about = f"git: {url}/tiny.git\nrevision: HEAD\ntoken: env:CANARY\n"
        ground = Ground(tmp_path / "g", {"model/m": about}, [CANARY], CANARY=CANARY)
        ran = ground.run("lock")
        assert ran.code == 1
        assert "git cannot fetch" in ran.err + ran.out, ran
        assert [a for a in asked if a[1]] == []


# --- written out -----------------------------------------------------------------------------------------------------

ADDRESSES: Mapping[str, str] = {
    "model/url": "url: https://u:{}@example.org/m.gguf\n",
    "model/signed": "url: https://example.org/m.gguf?X-Amz-Expires=60&X-Amz-Signature={}\n",
    "model/keyed": "url: https://example.org/m.gguf?token={}\n",
    "model/urls": "url: {{m.gguf: 'https://u:{}@example.org/m.gguf'}}\n",
    "model/git": "git: https://u:{}@example.org/m.git\n",
    "model/user": "git: https://ghp_{}@example.org/m.git\n",
    "model/endpoint": "hub: o/m\nendpoint: https://u:{}@example.org\n",
    "dataset/url": "url: https://u:{}@example.org/d.csv\n",
    "env/channel": "channels: ['https://u:{}@example.org/chan']\nconda: [x]\n",
    "env/token": "channels: ['https://example.org/t/{}/chan']\nconda: [x]\n",
    "env/pip": "python: host\npip: ['x @ https://u:{}@example.org/x.whl']\n",
    "env/variables": "python: host\nvariables: {{URL: 'https://u:{}@example.org'}}\n",
    "experiment/environ": "command: 'true'\nenviron: {{URL: 'postgresql://u:{}@example.org/db'}}\n",
    "experiment/source": "command: 'true'\nsource: {{git: 'https://u:{}@example.org/x.git'}}\n",
    "backup/rest": "repo: 'rest:https://u:{}@example.org/'\npassword: env:X\n",
    "backup/also": "repo: ROOT/repo\nalso: ['rest:https://u:{}@example.org/']\npassword: env:X\n",
    "sweep/storage": "experiment: e\nspace: {{x: [1]}}\nobjective: l\nsampler: grid\nstorage: 'postgresql://u:{}@h/d'\n",
    "tracking": "https://u:{}@example.org",
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_password_in_an_address_is_refused_and_stays_nowhere(tmp_path: Path, name: str) -> None:
    """Where an address is declared, with its file and line; the file itself is all that holds it."""
    text = ADDRESSES[name].format(CANARY_PLAIN)
    files = {} if name == "tracking" else {name: text}
    ground = Ground(tmp_path, files, [CANARY_PLAIN])
    if name == "tracking":
        head = (ground.lab.root / "conf/lab.yaml").read_text()
        ground.lab.write("conf/lab.yaml", head.replace("lab: {", f"lab: {{tracking: {{uri: '{text}'}}, "))
    for words in (("validate",), ("plan", "--json"), ("apply", "--yes"), ("lock",), ("doctor",)):
        ran = ground.run(*words)
        assert ran.code == 1, ran
        assert "does not belong here" in ran.out + ran.err, ran
    assert f"conf/{'lab' if name == 'tracking' else name}.yaml:" in ground.said
    assert ground.leaks(f"lab/conf/{'lab' if name == 'tracking' else name}.yaml") == []


# --- that it can fail -------------------------------------------------------------------------------------------------


def test_what_is_hidden_badly_is_found(tmp_path: Path) -> None:
    """The search itself: each way to hide a secret, in a file, a name, arguments and an environment."""
    hide: Mapping[str, Callable[[str], bytes]] = {
        "plain": str.encode,
        "base64": lambda s: base64.b64encode(f"u:{s}".encode()),
        "utf-16": lambda s: s.encode("utf-16"),
        "percent": lambda s: urllib.parse.quote(s, safe="").encode(),
        "hex": lambda s: s.encode().hex().encode(),
    }  # fmt: skip
    for name, form in hide.items():
        (tmp_path / name).write_bytes(b"before " + form(CANARY) + b" after")
    found = leaks(tmp_path, [CANARY])
    assert {Path(f.split(": ")[0]).name for f in found} == set(hide)
    ground = Ground(tmp_path / "g", {}, [CANARY])
    with ground.watching():
        subprocess.run(["sh", "-c", "sleep 0.2; exit", CANARY], check=True)
        subprocess.run(["sleep", "0.2"], env={**os.environ, "X": CANARY}, check=True)
    assert {s.partition(" of ")[0].rpartition(" ")[2] for s in ground.seen} == {"arguments", "environment"}
