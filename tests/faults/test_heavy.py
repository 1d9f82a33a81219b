"""Every heavier kind, killed before its effects and around every process it starts: the next apply completes.

One boundary of each sort that the kind has for itself (of a sweep every third); all of them with LAB_FAULTS=all.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Deed
from tests.faults.zygote import Zygote

ALL = os.environ.get("LAB_FAULTS") == "all"
KINDS = ("quantization", "env", "framework", "experiment", "sweep", "backup", "maintenance")
COMMON = (
    "/state/ledger",
    "/state/lock",
    "/state/audit",
    "/state/.audit",
    "/state/stamp",
    "/state/cache",
    "/state/backup/",
)


@pytest.fixture
def deed(bench: dict[str, Deed], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Deed:
    """The deed of a kind, in its surroundings."""
    if request.param == "backup" and not shutil.which("restic"):
        pytest.skip("needs restic")
    for name, value in bench[request.param].env.items():
        monkeypatch.setenv(name, value)
    return bench[request.param]


@pytest.mark.slow
@pytest.mark.parametrize("deed", KINDS, indirect=True)
def test_killed_before_every_sort_of_effect(quick: Path, zygote: Zygote, deed: Deed) -> None:
    """The apply is killed."""
    campaign = Campaign(quick, deed, zygote)
    own = [n for n in campaign.classes() if not any(x in campaign.line(n)["path"] for x in COMMON)]
    for at in campaign.every() if ALL else own[:: 3 if deed.name == "sweep" else 1]:
        campaign.kill(at)
    print(campaign.report)
    assert campaign.report.injected > campaign.report.missed
    assert not campaign.report.lost, str(campaign.report)


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["quantization", "env", "framework", "backup"], indirect=True)
def test_a_killed_child_is_told_and_the_next_apply_completes(quick: Path, zygote: Zygote, deed: Deed) -> None:
    """Each process that the apply starts is killed as soon as it is there."""
    campaign = Campaign(quick, deed, zygote)
    for at in [n for n in campaign.every() if campaign.line(n)["at"] == "spawned"]:
        campaign.fail(at, "child")
    print(campaign.report)
    assert campaign.report.injected > campaign.report.missed
    assert not campaign.report.lost, str(campaign.report)
