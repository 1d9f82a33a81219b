"""The processes that an apply starts for itself, killed before each of their own effects: told, and done next time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Deed
from tests.faults.zygote import Zygote

ALL = os.environ.get("LAB_FAULTS") == "all"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "who"), [("quantization", "child"), ("experiment", "supervisor")])
def test_killed_before_each_of_its_own_effects(
    quick: Path, zygote: Zygote, bench: dict[str, Deed], kind: str, who: str
) -> None:
    """The child that converts and quantizes, and a run's supervisor; one in three, all with LAB_FAULTS=all."""
    campaign = Campaign(quick, bench[kind], zygote)
    lines = [x for x in campaign.inner if x["inner"] == who]
    assert len(lines) > 5
    for line in lines[:: 1 if ALL else 3]:
        campaign.fail(line, "kill")
    campaign.report.boundaries = len(lines)
    print(campaign.report)
    assert campaign.report.injected > campaign.report.missed
    assert not campaign.report.lost, str(campaign.report)
