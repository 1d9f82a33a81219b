"""Killed before any effect, nothing is lost: the ledger opens, the next apply completes, finished work is not repeated.

Proves DC-4, S2-1.2-5, S3-VI.4-1. The quick part stops at some boundaries, the slow part at all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import Campaign
from tests.faults.labs import deeds
from tests.faults.zygote import Zygote

NAMES = ["create", "change", "destroy"]


@pytest.mark.parametrize(("name", "stride"), [("create", 19), ("change", 17), ("destroy", 17)])
def test_killed_here_and_there(quick: Path, zygote: Zygote, name: str, stride: int) -> None:
    """Some boundaries of making, changing and removing a few files."""
    campaign = Campaign(quick, deeds()[name], zygote)
    for at in campaign.every(stride):
        campaign.kill(at)
    assert campaign.boundaries > 50
    assert not campaign.report.lost, str(campaign.report)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_before_every_effect(quick: Path, zygote: Zygote, source: Path, name: str) -> None:
    """Every boundary of making, changing and removing files and a model: the deed done again completes."""
    campaign = Campaign(quick, deeds(source)[name], zygote)
    for at in campaign.every():
        campaign.kill(at)
    print(campaign.report)
    assert not campaign.report.lost, str(campaign.report)


def test_a_model_and_a_dataset_killed_here_and_there(quick: Path, zygote: Zygote, source: Path) -> None:
    """With what lies in the store, down to the last temporary."""
    campaign = Campaign(quick, deeds(source)["create"], zygote)
    for at in campaign.every(47):
        campaign.kill(at)
    assert not campaign.report.lost, str(campaign.report)


@pytest.mark.parametrize(("name", "stride"), [("create", 23), ("change", 9)])
def test_killed_and_then_destroyed(quick: Path, zygote: Zygote, name: str, stride: int) -> None:
    """Stopped anywhere and then given up: `destroy --all` leaves nothing of ours, half-written files included."""
    campaign = Campaign(quick, deeds()[name], zygote)
    for at in campaign.every(stride):
        campaign.kill(at, destroy=True)
    assert not campaign.report.lost, str(campaign.report)


def test_what_was_begun_elsewhere_is_not_orphaned(quick: Path, zygote: Zygote) -> None:
    """A file on its way to another path, killed there, and declared at a third path, at its first again, or no more:
    nothing stays at the second; but what somebody else put there since does."""
    for third in ("third", "a/b/c/deep", ""):
        campaign = Campaign(quick / (third.replace("/", "_") or "none"), deeds()["change"], zygote)
        names = [n for n in campaign.every() if campaign.line(n)["at"] == "step" and n < 60]
        for at in names[:3]:
            campaign.strike(at)
            lab, second = campaign.lab, campaign.lab.root / "out/elsewhere/deep"
            (lab.root / "conf/file/deep.yaml").unlink()
            if third:
                lab.write("conf/file/deep.yaml", f"path: ROOT/out/{third}\ncontent: deep\nmode: '0600'\n")
            theirs = second.exists() and at == names[0]
            if theirs:
                second.write_text("mine now")
            assert lab("apply", "--yes").code == 0
            assert second.exists() == theirs
            assert "No changes" in lab("plan").out
