"""Optuna's own dashboard opens what a sweep leaves, unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest

from tests.sweeps.conftest import Place
from tests.sweeps.kills import WORDS
from tests.sweeps.test_storages import free_port, reachable


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_optunas_dashboard_opens_a_study(place: Place, storage: str) -> None:
    """The command of docs/sweeps.md, on the study's own file: it lists the study, its trials, parameters and values."""
    pytest.importorskip("optuna_dashboard")
    found = place.sweep(*WORDS, "--trials", "3", "--storage", storage)
    folder, port = place.state / "sweeps" / "studies" / found["study"], free_port()
    where = str(folder / "journal.log") if storage == "journal" else f"sqlite:///{folder / 'study.db'}"
    command = [sys.executable, "-m", "optuna_dashboard._cli", where, "--port", str(port), "--server", "wsgiref"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        reachable(port)

        def ask(path: str) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as reply:
                return json.load(reply)

        (study,) = ask("studies")["study_summaries"]
        assert study["study_name"] == found["study"]
        until = time.monotonic() + 30
        while len(trials := ask(f"studies/{study['study_id']}?after=0")["trials"]) < 3 and time.monotonic() < until:
            time.sleep(0.2)
        assert [t["state"] for t in trials] == ["Complete"] * 3
        assert {p["name"] for p in trials[0]["params"]} == {"x", "y"}
        assert min(t["values"][0] for t in trials) == found["best"]["values"]["loss"]
    finally:
        server.kill()
        server.wait()
