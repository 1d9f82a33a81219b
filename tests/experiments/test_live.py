"""A run is watched while it runs: each line within a second, in order; each logged step one point of its curve.

Proves S2-3.4-2 and S4-2.2.1-5.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.adapters import mlflow_local, spool
from lab.adapters.live import Server
from lab.runs.folder import RunFolder
from lab.runs.run import RunSpec, launch
from tests.experiments.conftest import Bench

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


@pytest.mark.slow
def test_plain_mlflow_metrics_are_seen_while_the_run_lives_and_end_it_early(bench: Bench) -> None:
    """Code that knows only `mlflow` has a live curve; its target stops it; each point is there once, here and there."""
    bench.write(
        "code.py",
        """\
        import time
        import mlflow
        def main():
            with mlflow.start_run():
                for step in range(10_000):
                    mlflow.log_metric("loss", 1 / (step + 1), step=step)
                    time.sleep(0.02)
        """,
    )
    bench.write("conf/experiment/e.yaml", "call: code:main\nstop: {metric: loss, target: 0.05}\n")
    assert bench("run", "e", "-d", "-q")[0] == 0
    (folder,) = (RunFolder(p) for p in (bench.root / "state/runs").iterdir())
    made = Server(bench.root / "state")
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        came = events(ask(made, f"/api/v1/runs/{folder.id}/metrics"))
        first = [json.loads(data)["step"] for _, data, _ in itertools.islice(came, 3)]
        assert first == [0, 1, 2]
        assert not folder.result, "the curve is seen while it runs"
        assert list(came)[-1][0] == "end"
    finally:
        made.shutdown()
        made.server_close()
    assert folder.result["state"] == "finished"
    assert "loss reached 0.05" in folder.result["reason"]
    end = time.monotonic() + 20
    while spool.pending(folder) and time.monotonic() < end:
        time.sleep(0.05)
    here = [step for step, _, _ in folder.metrics()]
    client = MlflowClient(mlflow_local.uri(mlflow_local.database(bench.root / "state")))
    there = [p.step for p in client.get_metric_history(mlflow_local.run_id(folder.id), "loss")]
    assert here == there == list(range(len(here)))
    assert 20 <= len(here) < 10_000
