"""No verdict says that something fits that does not, and hardly one refuses what does.

Proves: issue 7, fit verdicts. The truths are every peak that MLX's engines published, and for llama.cpp its own cache
and compute buffer beside tensor bytes that are right to a thousandth; the hosts are all that Lab ships, and, for the
cases near a limit, a machine whose limit is set close to the truth.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.adapters import machine
from lab.core.host import GIB, Host
from lab.forecast import Architecture, Use, check, fit, needs
from tests.forecast.test_table import rows

TYPES = ("Q8_0", "Q4_K_M", "IQ4_XS")
ENGINE = ("kv_mib_engine", "compute_buffer_mib_engine")
BUILTIN = Path(check.__file__).parents[1] / "declare" / "builtin" / "host"


@dataclass(frozen=True)
class Case:
    """A use of a model, and the bytes that it really takes at its peak."""

    name: str
    arch: Architecture
    use: Use
    truth: float

    def fits(self, host: Host) -> bool:
        verdict = fit.verdict(self.arch, self.use, host, offer=False)
        assert verdict.fits is not None
        return verdict.fits


def published(known: check.Known) -> list[Case]:
    """Every published peak, as the check reads it."""
    found = []
    given = {r["id"]: r for r in rows("ground_truth.csv")}
    for c in check.check(given.values(), rows("architectures.csv")):
        if c.quantity == "peak":
            row = given[c.id]
            use = check._use(row, c.engine)
            assert use
            found.append(Case(c.id, known.find(row), use.with_(engine=c.engine, context=2560), c.truth))
    return found


def counted(known: check.Known) -> list[Case]:
    """What llama.cpp said that it allocates for a cache and a graph, beside the weights of each type."""
    parts: dict[tuple[str, str, str], dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows("size_truth.csv"):
        if row["kind"] in ENGINE and row["engine"] == "llama.cpp" and row["kv_type"] in ("", "f16"):
            parts[row["model"], row["n_ctx"], row["flash_attn"]][row["kind"]] = row
    found = []
    for (name, tokens, _), by in parts.items():
        if len(by) < len(ENGINE):
            continue
        arch = known.find(by[ENGINE[0]])
        for kind in TYPES:
            use = Use(type=kind, context=int(tokens))
            weights = needs(arch, use).weights
            if weights:
                truth = weights.value + sum(float(r["value"]) * 2**20 for r in by.values())
                found.append(Case(f"{name} {kind} at {tokens}", arch, use, truth))
    return found


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    known = check.Known(rows("architectures.csv"))
    found = [*published(known), *counted(known)]
    assert len(found) > 90
    return found


def limited(bytes_: float) -> Host:
    """A machine on which a model may take so many bytes."""
    host = Host(name="near", gpu="metal", platform="osx-arm64", memory=2048 * GIB, wired_limit=int(bytes_) + fit.MARGIN)
    bound = fit.limit(host)
    assert bound
    assert bound.bytes == int(bytes_)
    return host


def test_on_every_shipped_host_none_fits_falsely_and_hardly_one_is_refused(cases: list[Case]) -> None:
    """No false fit, and at most 2 % of those that fit are refused; both verdicts occur often."""
    hosts = [machine.declared(Path("conf"), p.stem) for p in sorted(BUILTIN.glob("*.yaml")) if p.stem != "auto"]
    fitting, refused, false_fits = 0, [], []
    for case in cases:
        for host in hosts:
            bound = fit.limit(host)
            assert bound
            says, does = case.fits(host), case.truth <= bound.bytes
            fitting += does
            if says and not does:
                false_fits.append((case.name, host.name))
            if does and not says:
                refused.append((case.name, host.name))
    assert false_fits == []
    assert 500 < fitting < len(cases) * len(hosts) - 500
    assert len(refused) <= 0.02 * fitting, refused


@pytest.mark.parametrize("lacking", [0.0002, 0.001, 0.005, 0.02, 0.1])
def test_what_lacks_a_little_does_not_fit(cases: list[Case], lacking: float) -> None:
    """A limit just under what is really taken is too small for every case, and the reason names both."""
    assert [c.name for c in cases if c.fits(limited(c.truth * (1 - lacking)))] == []
    one = fit.verdict(cases[0].arch, cases[0].use, limited(cases[0].truth * (1 - lacking)), offer=False)
    assert "wired_limit" in one.why


def test_what_has_the_promised_margin_fits(cases: list[Case]) -> None:
    """With 2 % and half a GiB to spare nothing is refused."""
    assert [c.name for c in cases if not c.fits(limited(c.truth * 1.02 + GIB // 2))] == []
