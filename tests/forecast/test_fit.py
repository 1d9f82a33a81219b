"""What does not fit names the limit that binds, and offers declarations that do fit.

Proves: issue 7, fit verdicts and offers, advice, totals of a plan.
"""

from __future__ import annotations

import re

import pytest

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.forecast import Estimate, Forecast
from lab.core.host import GIB, Host
from lab.forecast import Architecture, Use, catalogue, fit, needs, plan, work
from lab.forecast.advice import advise
from lab.forecast.totals import shortfalls

STUDIO = Host(name="studio", platform="osx-arm64", chip="M3 Ultra", gpu="metal", gpu_cores=80, bandwidth=819,
              memory=512 * GIB, wired_limit=400 * GIB, cores=32)  # fmt: skip
SMALL = Host(
    name="small", platform="osx-arm64", chip="M4 Pro", gpu="metal", gpu_cores=20, bandwidth=273, memory=48 * GIB
)


def known(name: str) -> Architecture:
    found = catalogue.find(name)
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "use", "host"),
    [
        ("DeepSeek-R1", Use(type="Q4_K_M", context=131072, sequences=8), STUDIO),
        ("DeepSeek-R1", Use(type="Q6_K", context=32768), STUDIO),
        ("Llama-3.3-70B", Use(type="Q4_K_M", context=131072), SMALL),
        ("Qwen3-32B", Use(format="mlx", bits=8, context=131072), SMALL),
    ],
)
def test_every_offer_fits(name: str, use: Use, host: Host) -> None:
    """Each declaration offered instead is forecast again, and fits."""
    verdict = fit.verdict(known(name), use, host)
    assert verdict.fits is False
    assert verdict.offers
    for offer in verdict.offers:
        changed, on = use, host
        if wired := re.search(r"wired_limit: (\d+)GB", offer):
            on = Host.model_validate({**host.model_dump(), "wired_limit": f"{wired[1]}GB"})
        else:
            label, tokens = re.match(r"(.+?) at (\d+k)", offer).groups()  # type: ignore[union-attr]
            changed = use.with_(context=int(tokens[:-1]) * 1024)
            if label != use.label():
                bits = re.search(r"mlx (\d)-bit", label)
                changed = changed.with_(bits=int(bits[1])) if bits else changed.with_(type=label)
        assert fit.verdict(known(name), changed, on, offer=False).fits is True, offer


def bound(host: Host) -> fit.Limit:
    found = fit.limit(host)
    assert found
    return found


def test_the_limit_that_binds_is_named() -> None:
    """The wired limit where one is set, the system's share where not, the GPU's own memory, or the machine's."""
    assert "wired_limit 400 GiB" in bound(STUDIO).name
    assert "default of 36 GiB" in bound(SMALL).name
    gpu = Host(gpu="cuda", gpu_memory=24 * GIB, memory=128 * GIB)
    assert "GPU's own memory" in bound(gpu).name
    assert bound(Host(memory=32 * GIB)).bytes == 28 * GIB
    assert fit.limit(Host()) is None


def test_what_is_not_known_is_no_verdict() -> None:
    """An architecture with gaps, or a host without a memory, neither fits nor fails to."""
    assert fit.verdict(Architecture(name="x"), Use(type="Q4_K_M"), STUDIO).fits is None
    assert fit.verdict(known("Qwen3-8B"), Use(type="Q4_K_M"), Host()).fits is None
    found = needs(Architecture(name="x", layers=4), Use(type="Q4_K_M"), STUDIO)
    assert found.weights is None
    assert any("weights: not known" in n and "width" in n for n in found.notes)


def test_advice_is_the_most_faithful_that_fits_and_is_quick_enough() -> None:
    """Q5_K_M of R1 on 480 GiB of wired memory; a wish for speed takes a smaller one; nothing fits on 48 GiB."""
    host = Host.model_validate({**STUDIO.model_dump(), "wired_limit": "480GiB"})
    best = advise(known("DeepSeek-R1"), host, 32768)
    assert best.best
    assert best.best.use.type == "Q5_K_M"
    quick = advise(known("DeepSeek-R1"), host, 32768, least=23)
    assert quick.best
    assert quick.best.decode
    assert quick.best.decode.value >= 23
    none = advise(known("DeepSeek-R1"), SMALL, 8192)
    assert none.best is None
    assert "nothing fits" in none.reasons[0]


def change(name: str, requires: tuple[str, ...] = (), action: Action = Action.CREATE, **figures: float) -> Change:
    values = {k: Estimate.exact(v, "test") for k, v in figures.items()}
    needed = tuple(Address(r) for r in requires)
    return Change(Address(name), action, requires=needed, forecast=Forecast(**values))


def test_totals_are_the_critical_path_and_the_disks_peak() -> None:
    """Time is the longest chain; disk is what stays and the largest passing need; memory is the most of any one."""
    changes = [
        change("model.a", download=10, disk=10, seconds=5),
        change("model.b", download=20, disk=20, seconds=1),
        change("quantization.a", ("model.a",), disk=4, disk_peak=16, seconds=7, memory=8),
        change("service.a", ("quantization.a",), memory=6, seconds=1),
        change("service.b", ("model.b",), memory=9, seconds=2),
        change("model.old", action=Action.NONE, disk=100, seconds=100),
    ]
    total = plan(changes)
    whole, store = total.whole, total.volumes[""]
    assert whole.download
    assert whole.download.value == 30
    assert whole.disk == store.disk
    assert store.disk
    assert store.disk.value == 34
    assert store.disk_peak
    assert store.disk_peak.value == 46
    assert whole.seconds
    assert whole.seconds.value == 13
    assert total.path == ("model.a", "quantization.a", "service.a")
    assert whole.memory
    assert whole.memory.value == 9
    assert shortfalls(total, {"": 40}) == [("", 46, 40)]
    assert shortfalls(total, {"": 50}) == []
    assert set(total.to_json()) >= {"download", "disk_peak", "volumes", "critical_path"}
    assert plan([]).whole.seconds is None


def test_what_is_fetched_at_once_shares_one_line() -> None:
    """Two fetches of the same size take twice as long as one, though neither waits for the other."""
    one = change("model.a", download=10, seconds=100)
    found = plan([one, change("model.b", download=10, seconds=100), change("quantization.c", ("model.a",), seconds=5)])
    assert found.whole.seconds
    assert found.whole.seconds.value == 200
    assert found.path == ("model.a", "quantization.c")


def test_work_takes_the_time_of_what_binds() -> None:
    """Fetching is the network's rate, K-quants are the cores', MLX on Metal is the disk's; unknown rates give none."""
    host = Host(cores=8, network=100e6, disk_rate=2e9, gpu="metal")
    fetch = work.fetching(16e9, host)
    assert fetch
    assert fetch.value == 160
    assert work.fetching(16e9, Host()) is None
    q4, q8 = (work.quantizing(8e9, Use(type=t), host, 16e9, 5e9) for t in ("Q4_K_M", "Q8_0"))
    assert q4
    assert q8
    assert q4.value > 2 * q8.value
    mlx = work.quantizing(8e9, Use(format="mlx", bits=4), host, 16e9, 4e9)
    assert mlx
    assert mlx.value == 10
    assert work.quantizing(8e9, Use(format="mlx", bits=4), Host(cores=8), 16e9, 4e9) is None
