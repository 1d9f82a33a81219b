"""From a laptop, `--host` runs Lab on the managed host over SSH, where the ledger is; a fresh session keeps its sshd.

A real sshd and real logins in a throw-away copy of this machine; `.venv/bin/lab` of the host is a script there.
Proves S0-US-003-4 (the host's key).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.host import sandbox

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if why := sandbox.possible():
        pytest.skip(why)
    return sandbox.inside(Path(__file__).with_name("inside_host.py"), tmp_path_factory.mktemp("sandbox"))


def test_plan_and_apply_run_on_the_host_and_the_laptop_keeps_no_ledger(report: dict[str, Any]) -> None:
    assert "file.motd  create" in report["plan from afar"]
    assert report["exit code from afar"] == "[2]"
    assert report["apply from afar"].endswith("[0]")
    assert report["written there"] == "owner\nhello[0]"
    assert report["ledger"] == [True, False]


def test_words_arrive_as_they_were_given(report: dict[str, Any]) -> None:
    assert "it's {a: b} $x` is no valid override" in report["an override"]


def test_a_host_that_is_not_there_or_not_reached_is_a_problem(report: dict[str, Any]) -> None:
    assert "did you mean `studio`" in report["no such host"]
    assert "host away cannot be reached" in report["cannot be reached"]
    assert report["cannot be reached"].endswith("[1]")


def test_a_changed_sshd_stays_once_a_fresh_session_confirmed_it(report: dict[str, Any]) -> None:
    assert report["access applied"].endswith("[0]"), report["access applied"]
    assert report["waits"]
    assert "Confirmed: sshd stays" in report["confirmed"]
    assert report["stays"][0] is False
    assert "No changes" in report["stays"][1]


def test_the_doctor_tells_a_strange_host_key_from_an_unknown_one(report: dict[str, Any]) -> None:
    assert report["doctor on the host"].endswith("[0]"), report["doctor on the host"]
    assert "does not know the machine yet" in report["a machine not known"]
    assert "✓ shell" in report["a machine known"]
    assert "it is another than before" in report["a machine made anew"]


def test_the_playbook_reaches_a_further_host_and_changes_nothing_the_second_time(report: dict[str, Any]) -> None:
    assert "failed=0" in report["a further host"]
    assert "changed=1" in report["a further host"]
    assert "changed=0" in report["and again"]
    assert report["made there"].startswith("From afar")
    assert "authorized_keys" in report["made there"]
