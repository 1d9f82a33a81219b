"""Guests use `lab` through the owner's broker: they run and look at what is opened to them, and nothing else.

The owner is no root and has sudo; accounts, sshd, broker and runs are real, in a throw-away copy of this machine. Each
refusal counts only beside a positive control and for its expected reason.
Proves S0-3.3-1, S0-US-007-2, S0-US-007-4.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.host import sandbox

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if why := sandbox.possible():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("sandbox")
    return sandbox.inside(Path(__file__).with_name("inside_broker.py"), folder, timeout=1200)


def test_the_owner_applies_with_sudo_and_then_there_is_nothing_to_do(report: dict[str, Any]) -> None:
    assert report["applied"].endswith("[0]"), report["applied"]
    assert "No changes" in report["nothing to do"]
    assert "nobody is there to give it" in report["nobody there for sudo"]
    assert "sudo did not take that password" in report["a wrong password"]
    assert "root does not apply your lab" in report["under sudo"]
    assert report["password in sight"] == "[0]"


def test_a_guest_runs_what_is_opened_in_their_own_account(report: dict[str, Any]) -> None:
    assert re.search(r"trained as \d+ with 0.5.*finished after.*loss = 0.1667.*\[0\]", report["run"], re.S)
    assert re.search(r"tiny weights\nann\n.*finished", report["run of another module"], re.S)
    assert re.search(r"trained as.*finished.*\[0\]", report["without a shell"], re.S)
    assert report["runs are the guest's"] == "ann\n[0]"
    assert "finished" in report["runs"]
    assert "trained as" in report["logs"]


def test_a_guest_sees_what_they_may_use_however_they_came(report: dict[str, Any]) -> None:
    assert report["list"].split()[::2][:1] == ["model.tiny"]
    assert all(f"experiment.{n}" in report["list"] for n in ("train", "look", "eat"))
    assert "model.other" not in report["list"]
    assert "experiment.hidden" not in report["list"]
    assert report["list"].removesuffix("[0]") in report["by su"]
    assert "lab run" in report["help"]


def test_a_run_outlives_the_session_and_ends_when_asked(report: dict[str, Any]) -> None:
    assert "runs. See" in report["in the background"]
    assert "▸" in report["outlives the session"]
    assert "tiny weights" in report["log of one"]
    assert "is stopped" in report["stopped"]


def test_a_run_that_holds_too_much_memory_is_ended_and_told(report: dict[str, Any]) -> None:
    assert "out of memory" in report["too much memory"]
    assert "state=out of memory" in report["owner sees"]


def test_everything_else_is_tried_and_refused_for_the_expected_reason(report: dict[str, Any]) -> None:
    cases = report["refused"]
    assert len(cases) >= 34
    assert {n: c for n, c in cases.items() if not c["control"]} == {}
    assert {n: c for n, c in cases.items() if not c["refused"]} == {}


def test_who_holds_too_much_or_whose_time_is_over_runs_nothing(report: dict[str, Any]) -> None:
    assert "and may hold 50" in report["over their disk"]
    assert "your access ended on 2020-01-01" in report["over"]
    assert report["ended when their time was over"] == "[1]"
    assert "all they ran was ended" in report["log of all"]


def test_what_guests_do_is_noted_and_a_changed_or_cut_log_is_found(report: dict[str, Any]) -> None:
    log = report["log"]
    assert "login from 127.0.0.1: lab list" in log
    assert re.search(r"lab guest run train lr=0.5\s+run=train-", log)
    assert re.search(r"train-\S+ ended\s+state=finished seconds=\S+ bytes=", log)
    assert "lab apply --yes  code=1" in log
    assert "refused  why=the question is longer than 64 KiB" in log
    assert re.search(r"^\d+ entries are sound\.\n\[0\]$", report["verify"])
    assert re.search(r"line \d+ was altered", report["tampered"])
    assert "its end was cut off" in report["cut"]


def test_a_broker_that_is_gone_is_seen_and_comes_back(report: dict[str, Any]) -> None:
    assert "the lab does not answer" in report["without a broker"]
    assert "✗ broker  it is silent" in report["and told"]
    assert "broker drifted" in report["its absence is seen"]
    assert "experiment.train" in report["and mended"]


def test_nothing_of_it_is_left(report: dict[str, Any]) -> None:
    assert report["removed"].endswith("[0]"), report["removed"]
    assert report["left"] == []
    assert report["processes left"] == "[1]"
    assert report["kept home"] == "root 700\n1\n[0]"
    assert int(report["archived"].split()[0]) >= 4
