"""Weights & Biases is a second tracker that is written offline, by W&B itself, with the same code in the run.

Proves S0-US-006-1.
"""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import spool, wandb_offline
from lab.runs.folder import RunFolder
from tests.experiments.conftest import Bench

CODE = """\
import lab.sdk as lab
def main(lr: float = 0.1):
    for step in range(20):
        lab.log({"loss": lr / (step + 1)}, step=step)
    lab.log_html("page", "<p>hi</p>")
"""


def records(place: Path) -> list[Any]:
    """What a W&B directory holds: its records, out of the LevelDB log they lie in."""
    from wandb.proto import wandb_internal_pb2

    data, found, part = next(place.glob("*.wandb")).read_bytes(), [], b""
    assert data[:4] == b":W&B"
    at = 7
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


def told(bench: Bench) -> tuple[RunFolder, list[Path]]:
    """The newest run once it is shipped, and all W&B directories."""
    folder = RunFolder(max((bench.root / "state/runs").iterdir(), key=lambda p: p.stat().st_mtime))
    end = time.monotonic() + 60
    while spool.pending(folder) and time.monotonic() < end:
        time.sleep(0.05)
    return folder, sorted((bench.root / "state/wandb").glob("offline-run-*"))


def test_the_same_code_is_tracked_by_both(bench: Bench) -> None:
    """Without the setting MLflow alone; with it W&B's own directory too: parameters, every step, the page; once."""
    pytest.importorskip("wandb")
    bench.write("job.py", CODE)
    bench.write("conf/experiment/e.yaml", "call: job:main\nparams: {lr: 0.5}\n")
    assert bench("run", "e", "-q")[0] == 0
    assert told(bench)[1] == []
    conf = bench.root / "conf/lab.yaml"
    conf.write_text(conf.read_text().replace("{name: test", "{tracking: {wandb: offline}, name: test"))
    assert bench("run", "e", "-q")[0] == 0
    folder, (place,) = told(bench)
    assert not spool.pending(folder), (folder / "tracking.log").read_text()
    found = records(place)
    (run,) = (r.run for r in found if r.HasField("run"))
    assert (run.display_name, run.run_id) == (folder.id, wandb_offline.identity(folder.id))
    assert {c.key: json.loads(c.value_json) for c in run.config.update}["lr"] == 0.5
    rows = [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in r.history.item}
            for r in found if r.HasField("history")]  # fmt: skip
    assert [(r["_step"], r["loss"]) for r in rows if "loss" in r] == [(s, 0.5 / (s + 1)) for s in range(20)]
    assert (place / "files" / "page.html").read_text() == "<p>hi</p>"
    assert any(r.HasField("exit") and r.exit.exit_code == 0 for r in found)
    (folder / wandb_offline.NOTE).unlink()
    assert spool.pending(folder)
    assert bench("track", "sync")[0] == 0
    assert len(told(bench)[1]) == 1, "written again, not doubled"


def test_where_it_is_not_installed_the_run_waits_and_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracking fails no run: what is missing is told by `lab track sync`."""
    bench.write("job.py", CODE)
    bench.write("conf/experiment/e.yaml", "call: job:main\nisolation: inline\n")
    conf = bench.root / "conf/lab.yaml"
    conf.write_text(conf.read_text().replace("{name: test", "{tracking: {wandb: offline}, name: test"))
    monkeypatch.setattr(wandb_offline, "installed", lambda: False)
    assert bench("run", "e", "-q")[0] == 0
    code, said = bench("track", "sync")
    assert code == 1
    assert "pip install 'llm-lab[wandb]'" in said
