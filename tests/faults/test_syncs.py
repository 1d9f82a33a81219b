"""A sync that fails: what it was to keep may be gone for good: it is told, and written again, not only synced again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import Deed
from tests.faults.labs import deeds, downloaded
from tests.faults.shim import SPARED, Syncs
from tests.faults.zygote import Zygote
from tests.models.servers import serving, sha256


@pytest.mark.slow
@pytest.mark.parametrize("name", ["create", "change", "destroy"])
def test_every_sync_fails_in_its_turn(quick: Path, shimmed: Zygote, source: Path, name: str) -> None:
    """Files, a model and a dataset, and SQLite below them."""
    campaign = Syncs(quick, deeds(source)[name], shimmed)
    for number in range(1, len(campaign.syncs) + 1):
        campaign.fail_sync(number)
    print(campaign.report)
    assert not campaign.report.lost, str(campaign.report)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quantization", "env"])
def test_every_sync_of_heavier_work_fails_in_its_turn(
    quick: Path, shimmed: Zygote, bench: dict[str, Deed], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also those of the processes that an apply starts."""
    for name, value in bench[kind].env.items():
        monkeypatch.setenv(name, value)
    campaign = Syncs(quick, bench[kind], shimmed)
    for number in [n for n, s in enumerate(campaign.syncs, 1) if not SPARED.search(s.path)]:
        campaign.fail_sync(number)
    print(campaign.report)
    assert campaign.report.injected > campaign.report.missed
    assert not campaign.report.lost, str(campaign.report)


def test_every_sync_of_a_download_fails_in_its_turn(quick: Path, shimmed: Zygote) -> None:
    """The part, the blob and the folder it lies in: what a failed sync may have lost is asked for again."""
    (quick / "served").mkdir()
    with serving(quick / "served") as server:
        (server.root / "a.txt").write_bytes(b"a" * 50_000)
        (server.root / "b.txt").write_bytes(b"b" * 50_000)
        urls = {f"{server.url}/a.txt": sha256(b"a" * 50_000), f"{server.url}/b.txt": ""}
        campaign = Syncs(quick, downloaded(urls), shimmed)
        own = [n for n, s in enumerate(campaign.syncs, 1) if "/store/" in s.path]
        for number in own:
            campaign.fail_sync(number)
        print(campaign.report)
        assert campaign.report.injected > campaign.report.missed
        assert not campaign.report.lost, str(campaign.report)


def test_nothing_is_told_before_it_is_on_disk(quick: Path, shimmed: Zygote) -> None:
    """Each commit of the ledger is synced: an apply of a few files syncs its log as often as it commits."""
    campaign = Syncs(quick, deeds()["create"], shimmed)
    commits = sum(x["at"] == "sqlite COMMIT" and "ledger.sqlite" in x["path"] for x in campaign.lines.values())
    synced = sum("ledger.sqlite-wal" in s.path for s in campaign.syncs)
    assert commits > 3
    assert synced >= commits
