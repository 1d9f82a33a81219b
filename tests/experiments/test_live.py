"""A run is watched while it runs: each line within a second, in order; each logged step one point of its curve.

Proves S2-3.4-2 and S4-2.2.1-5.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.adapters.live import Server
from lab.runs.run import RunSpec, launch

CODE = """\
import time
import lab.sdk as lab
def main():
    for step in range(30):
        lab.log({"loss": 1 / (step + 1)}, step=step)
        print(f"line {step} {time.time()}", flush=True)
        time.sleep(0.03)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the runs below a state folder."""
    made = Server(tmp_path)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server: Server, path: str, key: str = "", **headers: str) -> http.client.HTTPResponse:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("GET", f"{path}?key={key or server.key}", headers=headers)
    return connection.getresponse()


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, float]]:
    """Kind, data and time of each server-sent event."""
    kind, data = "message", ""
    while line := answer.readline():
        text = line.decode().rstrip("\n")
        if text.startswith("event: "):
            kind = text[7:]
        elif text.startswith("data: "):
            data = text[6:]
        elif not text and data:
            yield kind, data, time.time()
            kind, data = "message", ""


def test_lines_come_in_order_within_a_second_and_each_step_is_a_point(tmp_path: Path, server: Server) -> None:
    """Listened to while it runs; the stream ends with how the run ended, and goes on after a break where it was."""
    (tmp_path / "code_.py").write_text(CODE)
    spec = RunSpec(tmp_path / "runs" / "r1", "r", call="code_:main", cwd=str(tmp_path), path=(str(tmp_path),))
    handle = launch(spec)
    got = list(events(ask(server, "/api/v1/runs/r1/logs")))
    said = [(d.split(), at) for kind, d, at in got if kind == "message" and d.startswith("line ")]
    assert [int(words[1]) for words, _ in said] == list(range(30))
    late = sorted(at - float(words[2]) for words, at in said)
    assert late[int(0.95 * len(late))] < 1
    assert got[-1][0] == "end"
    assert json.loads(got[-1][1])["state"] == "finished"
    assert handle.wait(10) is not None
    points = [json.loads(d) for kind, d, _ in events(ask(server, "/api/v1/runs/r1/metrics")) if kind == "message"]
    assert [(p["step"], p["values"]["loss"]) for p in points] == [(s, 1 / (s + 1)) for s in range(30)]
    first = len((tmp_path / "runs/r1/output.log").read_bytes().splitlines(keepends=True)[0])
    rest = [d for kind, d, _ in events(ask(server, "/api/v1/runs/r1/logs", **{"Last-Event-ID": str(first)}))]
    assert rest[0].startswith("line 1 ")
    page = ask(server, "/runs/r1")
    assert page.status == 200
    assert b"/api/v1/runs/r1/" in page.read()


def test_only_the_key_opens_it(tmp_path: Path, server: Server) -> None:
    """Another key, another site's name, a path out of the runs, a run that is not there."""
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    (tmp_path / "runs" / "r1" / "spec.json").write_text("{}")
    (tmp_path / "spec.json").write_text("{}")
    assert ask(server, "/runs/r1").status == 200
    assert ask(server, "/runs/r1", key="wrong").status == 403
    assert ask(server, "/runs/r1", Host="evil.example").status == 403
    assert ask(server, "/runs/..").status == 404
    assert ask(server, "/api/v1/runs/none/logs").status == 404
    assert ask(server, "/api/v1/runs/r1/spec.json").status == 404
