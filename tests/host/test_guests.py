"""A guest may use what was given and nothing else; when they go, the machine is as it was before they came.

Real accounts, keys, access lists and a private sshd, in a throw-away copy of this machine. Each refusal counts only
beside a positive control and for its expected reason.
Proves S0-3.3-2, S0-8.2-4, S0-US-007-1, S0-4.7-4, DC-5.
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
    return sandbox.inside(Path(__file__).with_name("inside_guests.py"), tmp_path_factory.mktemp("sandbox"))


def test_a_guest_is_made_as_declared_and_made_only_once(report: dict[str, Any]) -> None:
    found = report["round"]
    assert found["absent before"]
    assert found["as declared"] == []
    assert found["processes hidden"]
    assert not any(found["second run changes nothing"])


def test_check_mode_agrees_with_the_plan(report: dict[str, Any]) -> None:
    found = report["round"]
    assert all(found["check mode would make them"])
    assert found["and makes none"]
    assert not any(found["check mode agrees"])


def test_what_was_changed_by_hand_is_seen_and_repaired(report: dict[str, Any]) -> None:
    assert report["round"]["drift"] == [
        "expires",
        "files./etc/lab/guests/ann/rules",
        "grants./srv/lab/store/models/tiny",
    ]
    assert report["round"]["drift after repair"] == []


def test_everything_forbidden_is_tried_and_refused_for_the_expected_reason(report: dict[str, Any]) -> None:
    cases = report["refused"]
    assert len(cases) >= 45
    assert {n: c for n, c in cases.items() if not c["control"]} == {}
    assert {n: c for n, c in cases.items() if not c["refused"]} == {}


def test_removal_leaves_the_machine_as_it_was(report: dict[str, Any]) -> None:
    found = report["round"]
    assert found["nobody left"]
    assert found["left or changed"] == []
    assert found["no file left"] == "[0]"
    assert found["no process left"] == "[1]"
    assert found["processes shown again"]
    assert not any(found["removing again changes nothing"])
    assert [mode for _, mode in found["archives"]] == ["0o600"] * 5
    assert found["a uid is never given twice"]


def test_through_lab_itself_one_or_many_are_one_ansible_run_and_then_there_is_nothing_to_do(tmp_path: Path) -> None:
    if why := sandbox.possible():
        pytest.skip(why)
    found = sandbox.inside(Path(__file__).with_name("inside_apply.py"), tmp_path, "6", "2")
    assert found["applied one"].endswith("[0]"), found["applied one"]
    assert found["nothing to do"]
    assert found["drift is seen"]
    assert found["repaired"]
    assert found["applied many"].endswith("[0]"), found["applied many"]
    assert found["nothing to do for many"]
    assert found["removed said"].endswith("[0]"), found["removed said"]
    assert found["left"] == [False, False]
