"""The campaign can fail: with any one guard taken away it reports a loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import Campaign
from tests.faults.labs import deeds
from tests.faults.zygote import Zygote


@pytest.mark.parametrize(
    ("guard", "deed", "at", "how", "destroy", "says"),
    [
        ("no_intent", "create", "stepped", "kill", True, "orphaned"),
        ("no_record", "create", "sqlite UPDATE", "kill", False, "not recorded"),
        ("no_begun", "change", "stepped", "kill", True, "orphaned"),
        ("no_rename", "change", "write", "tear", False, "torn"),
        ("no_sync", "create", "stepped", "kill", False, "before it was synced"),
    ],
)
def test_without_a_guard_the_loss_is_seen(
    quick: Path, zygote: Zygote, guard: str, deed: str, at: str, how: str, destroy: bool, says: str
) -> None:
    """Each guard in turn; the same boundaries lose nothing with it."""
    for broken in (guard, ""):
        campaign = Campaign(quick / (broken or "whole"), deeds()[deed], zygote, broken=broken)
        sites = [
            n for n in campaign.every() if campaign.line(n)["at"] == at and "stamp" not in campaign.line(n)["path"]
        ]
        for n in sites[:12]:
            campaign.kill(n, how, destroy=destroy)
        seen = [x for x in campaign.report.lost if says in x]
        assert bool(seen) == bool(broken), str(campaign.report)
        assert broken or not campaign.report.lost, str(campaign.report)
