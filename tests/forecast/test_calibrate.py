"""A calibration is measured here, used by forecasts, corrected by real runs, and told when it no longer holds.

Proves: issue 7, calibration and feedback. What engines reach is measured in the slow suite; a shared machine is no
place to judge how fast they are, so only that figures are sound is asserted.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.adapters import calibrate, machine
from lab.app.calibrate import calibrated, feed
from lab.app.lab import Lab
from lab.core.host import GIB, Engine, Host
from lab.forecast import Use, catalogue, needs
from tests.engines import make
from tests.labs import TestLab

ENGINE = {"eta": 0.5, "alpha": 1e-4, "flops": 1e11, "eta_by_type": {"Q4_K": 0.4}, "flops_by_type": {}, "version": "1"}


def test_rates_are_measured(tmp_path: Path) -> None:
    """Memory, hash and disk have rates above zero, and nothing is left on the disk."""
    assert calibrate.bandwidth(threads=1, mib=8, rounds=2) > 0.1
    assert calibrate.hashing(4) > 1e6
    assert calibrate.disk(tmp_path, 8) > 1e5
    assert list(tmp_path.iterdir()) == []


def test_forecasts_use_what_was_measured() -> None:
    """The engine's own share of the bandwidth, by type, with the calibration named as the source."""
    arch = catalogue.find("Qwen3-8B")
    assert arch
    host = Host(bandwidth=20, memory=32 * GIB, cores=8)
    plain = needs(arch, Use(type="Q4_K_M"), host)
    found = needs(arch, Use(type="Q4_K_M"), host.model_copy(update={"engines": {"llama.cpp": Engine(**ENGINE)}}))
    assert plain.decode
    assert found.decode
    assert found.decode.source == "calibration"
    assert found.decode.value < plain.decode.value
    other = needs(
        arch, Use(type="Q8_0"), host.model_copy(update={"engines": {"llama.cpp": Engine(**{**ENGINE, "eta": 0.8})}})
    )
    assert other.decode
    assert other.decode.value == pytest.approx(20e9 * 0.8 / 8.05e9, rel=0.1)


def test_the_machine_takes_the_measured_bandwidth(tmp_path: Path) -> None:
    """`host: auto` has no published bandwidth on linux; a calibration gives it."""
    (tmp_path / "calibration.json").write_text('{"bandwidth": 12.5, "disk_rate": 5e8}')
    assert machine.read(tmp_path).bandwidth == 12.5
    assert machine.read(tmp_path).disk_rate == 5e8


def test_an_upgraded_engine_is_told_and_real_runs_correct_the_rest(tmp_path: Path) -> None:
    """Another version makes it stale; a run that was slower than forecast moves the share a fifth of the way."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "lab.yaml").write_text("lab: {name: x, id: 1}\n")
    (tmp_path / "state").mkdir()
    store = tmp_path / "state" / "calibration.json"
    store.write_text(json.dumps({"engines": {"llama.cpp": ENGINE}}))
    lab = Lab(tmp_path)
    assert any("was 1 when it was measured" in why or "no longer installed" in why for why in calibrated(lab).stale)
    feed(lab, "llama.cpp", forecast=20, measured=10, version="1")
    now = json.loads(store.read_text())["engines"]["llama.cpp"]
    assert now["eta"] == pytest.approx(0.5 * 0.5**0.2)
    assert now["fed"] == 1
    feed(lab, "llama.cpp", forecast=20, measured=10, version="2")
    assert json.loads(store.read_text())["engines"]["llama.cpp"]["fed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama.cpp", "mlx"])
def test_an_engine_is_measured_in_a_child(name: str, tmp_path: Path) -> None:
    """Shares, a cost per layer and arithmetic are positive, by type; the random model is gone."""
    if name not in calibrate.versions():
        pytest.skip(f"{name} is not installed")
    found = calibrate.engine(name, tmp_path, 10.0)
    assert found["eta"] > 0
    assert found["alpha"] >= 0
    assert found["flops"] > 0
    assert all(v > 0 for v in found["eta_by_type"].values())
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_this_machine_uses_what_was_measured_on_it(tmp_path: Path) -> None:
    """Also where the host is declared by name: the same chip and memory are the same machine, another is not."""
    here = Host(name="auto", chip="M3 Ultra", memory=512 * GIB, bandwidth=700, engines={"mlx": Engine(**ENGINE)})
    declared = Host(name="mac_studio_512", chip="M3 Ultra", memory=512 * GIB, bandwidth=819)
    assert declared.measured(here).engines == here.engines
    assert declared.measured(here).bandwidth == 700
    assert declared.measured(here.model_copy(update={"memory": 256 * GIB})) == declared
    assert declared.measured(here.model_copy(update={"engines": {}})) == declared
    (tmp_path / "calibration.json").write_text(json.dumps({"engines": {"mlx": ENGINE, "broken": {"eta": "x"}}}))
    assert set(machine.read(tmp_path).engines) == {"mlx"}


@pytest.mark.slow
def test_a_bench_on_an_idle_machine_corrects_the_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast moves towards what llama.cpp really reached; on a busy machine it stays."""
    pytest.importorskip("llama_cpp")
    gguf = make.gguf(make.model(tmp_path / "tiny"), tmp_path / "tiny.gguf", "F16")
    lab = TestLab.make(tmp_path, {"model/x": f"path: {gguf}\n"}, "host: {name: auto, bandwidth: 10}\n")
    assert lab("apply", "--yes").code == 0
    store = tmp_path / "state" / "calibration.json"
    engine = {**ENGINE, "eta": 1e-6, "eta_by_type": {}, "version": calibrate.versions()["llama.cpp"]}
    store.write_text(json.dumps({"engines": {"llama.cpp": engine}}))
    machine.read.cache_clear()
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 99.0, 99.0))
    words = ("bench", "model.x", "--depths", "16", "--tokens", "8", "--repeats", "1")
    assert lab(*words).code == 0
    assert json.loads(store.read_text())["engines"]["llama.cpp"] == engine
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert lab(*words).code == 0
    learnt = json.loads(store.read_text())["engines"]["llama.cpp"]
    assert learnt["eta"] == pytest.approx(1e-6 * 2**0.2)
    assert learnt["fed"] == 1
