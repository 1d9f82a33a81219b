"""A calibration is measured here, used by forecasts, corrected by real runs, and told when it no longer holds.

Proves: issue 7, calibration and feedback. What engines reach is measured in the slow suite; a shared machine is no
place to judge how fast they are, so only that figures are sound is asserted.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import calibrate, machine
from lab.app import serve
from lab.app.calibrate import calibrated, feed, source
from lab.app.lab import Lab
from lab.core.host import GIB, Engine, Host
from lab.forecast import Use, catalogue, needs, work
from tests.engines import make
from tests.labs import TestLab
from tests.models.servers import serving

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


def test_the_network_is_measured_where_the_models_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few seconds of the largest locked file tell the line's rate; offline or out of reach it is not known."""
    repository = tmp_path / "www" / "org" / "tiny"
    repository.mkdir(parents=True)
    for name, size in (("config.json", 10), ("model.safetensors", 6 << 20)):
        (repository / name).write_bytes(bytes(size))
    with serving(tmp_path / "www") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        lab = TestLab.make(tmp_path / "lab", {"model/x": "hub: org/tiny\n"})
        assert lab("lock").code == 0
        found = Lab.find(lab.root)
        url = source(found)
        assert url.endswith("/model.safetensors")
        rate = calibrate.line(url, offline=False)
        assert rate is not None
        assert rate > 1e6
        assert any(path_range for path_range, _ in server.gets("model.safetensors"))
    assert calibrate.line(url, offline=False) is None
    assert source(Lab.find(TestLab.make(tmp_path / "none").root)) == ""


def test_a_measured_rate_of_quantizing_counts_for_every_type() -> None:
    """Twice the rate is half the time, by the types' own ratios; without it the cores' usual rate stands."""
    host = Host(cores=8, disk_rate=1e12)
    usual, fast = (
        work.quantizing(8e9, Use(type="Q6_K"), h, 16e9, 6e9)
        for h in (host, host.model_copy(update={"quantize": 16 * work.RATES["Q4_K"]}))
    )
    assert usual
    assert fast
    assert fast.value == pytest.approx(usual.value / 2, rel=0.01)
    assert fast.source == "calibration"
    assert work.quantizing(8e9, Use(type="Q6_K"), Host(), 16e9, 6e9) is None


@pytest.mark.slow
def test_quantizing_is_measured_by_llama_cpp_itself(tmp_path: Path) -> None:
    """A random model is quantized to Q4_K; nothing stays."""
    pytest.importorskip("llama_cpp")
    from lab.adapters import calibrate_engines

    assert calibrate_engines.quantizing(tmp_path) > 1e6
    assert list(tmp_path.iterdir()) == []


def test_the_machine_takes_the_measured_bandwidth(tmp_path: Path) -> None:
    """`host: auto` has no published bandwidth on linux; a calibration gives it."""
    (tmp_path / "calibration.json").write_text('{"bandwidth": 12.5, "disk_rate": 5e8, "network": 3e7, "quantize": 4e7}')
    assert machine.read(tmp_path).bandwidth == 12.5
    assert (machine.read(tmp_path).network, machine.read(tmp_path).quantize) == (3e7, 4e7)
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


class Measured:
    """A lab on a machine that was calibrated far too slow, so that every real rate corrects it."""

    def __init__(self, root: Path, engine: str, version: str = "") -> None:
        self.engine = engine
        source = make.model(root / "tiny", spread=1.0)
        if engine == "llama.cpp":
            source = make.gguf(source, root / "tiny.gguf", "F16")
        self.lab = TestLab.make(root, {"model/x": f"path: {source}\n"}, "host: {name: auto, bandwidth: 10}\n")
        assert self.lab("apply", "--yes").code == 0
        made = "format: gguf\ntype: Q8_0\n" if engine == "llama.cpp" else "format: mlx\nbits: 4\n"
        self.lab.write("conf/quantization/q.yaml", f"of: x\ncontext: 256\n{made}")
        self.store = root / "state" / "calibration.json"
        known = {**ENGINE, "eta": 1e-6, "alpha": 1e-9, "eta_by_type": {}, "version": version or self.version}
        rates = {"at": 0.0, "bandwidth": 10.0, "hash_rate": 1e9, "disk_rate": 1e9}
        self.store.write_text(json.dumps({**rates, "engines": {engine: known}}))
        self.known = known
        machine.read.cache_clear()

    @property
    def version(self) -> str:
        return calibrate.versions()[self.engine]

    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.read_text())["engines"][self.engine]
        return found

    def corrected(self, by: str) -> bool:
        """Whether exactly one observation moved it, a fifth of the way, bounded to twice; and says whose it was."""
        now = self.now()
        assert now.get("fed", 0) in (0, 1)
        if "fed" in now:
            assert now["eta"] == pytest.approx(1e-6 * 2**0.2)
            assert now["last"]["by"].startswith(by)
            assert now["last"]["address"] == "model.x"
            assert now["last"]["depth"] > 0
        return "fed" in now


IDLE, BUSY = (lambda: (0.0, 0.0, 0.0)), (lambda: (99.0, 99.0, 99.0))
ENGINES = [pytest.param("llama.cpp", id="llama.cpp"), pytest.param("mlx", id="mlx")]


@pytest.fixture(params=ENGINES)
def measured(request: pytest.FixtureRequest, tmp_path: Path) -> Measured:
    pytest.importorskip({"llama.cpp": "llama_cpp", "mlx": "mlx_lm"}[request.param])
    return Measured(tmp_path, request.param)


@pytest.mark.slow
def test_a_bench_on_an_idle_machine_corrects_the_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast moves towards what llama.cpp really reached; on a busy machine, or by few tokens, it stays."""
    pytest.importorskip("llama_cpp")
    measured = Measured(tmp_path, "llama.cpp")
    words = ("bench", "model.x", "--repeats", "1", "--tokens")
    monkeypatch.setattr("os.getloadavg", BUSY)
    assert measured.lab(*words, "40", "--depths", "16").code == 0
    assert measured.now() == measured.known
    monkeypatch.setattr("os.getloadavg", IDLE)
    assert measured.lab(*words, "8", "--depths", "16").code == 0
    assert measured.now() == measured.known
    for depth in range(16, 97, 10):  # a model without sense may end its text at any token
        assert measured.lab(*words, "40", "--depths", str(depth)).code == 0
        if measured.corrected("bench"):
            break
    assert measured.now()["fed"] == 1


@pytest.mark.slow
def test_what_is_generated_corrects_the_calibration_and_the_next_forecast_uses_it(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short text counts for nothing, a long one does: `lab forecast` and `lab plan` follow, `--show` says so."""

    def rates() -> tuple[float, str]:
        machine.read.cache_clear()
        found = json.loads(measured.lab("forecast", "model.x", "--type", kind, "--context", "256", "--json").out)
        planned = measured.lab("plan").out
        return found["rows"][0]["decode"]["value"], planned

    kind = "F16" if measured.engine == "llama.cpp" else "mlx-16bit"
    monkeypatch.setattr("os.getloadavg", IDLE)
    before, planned = rates()
    words = ("generate", "model.x", "The class", "--temperature", "1", "--max-tokens")
    assert measured.lab(*words, "8").code == 0
    assert measured.now() == measured.known
    for seed in range(9):  # a model without sense may end its text at any token
        assert measured.lab(*words, "200", "--seed", str(seed)).code == 0
        if measured.corrected("generate"):
            break
    assert measured.now()["fed"] == 1
    after, planned_after = rates()
    assert after == pytest.approx(before * 2**0.2, rel=1e-3)
    assert "tokens/s" in planned
    assert planned != planned_after
    assert "corrected 1×, last by generate of model.x at a depth of" in measured.lab("calibrate", "--show").out


@pytest.mark.slow
def test_a_server_corrects_the_calibration_by_its_fastest_long_answer(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer given alone is written down with its prompt's tokens; a short one does not count."""
    monkeypatch.setattr("lab.app.calibrate.IDLE", 99.0)  # the server is a process of its own: its load is real
    lab = Lab.find(measured.lab.root)
    server = serve.serve(lab, "model.x")
    try:
        server.ready()
        for tokens in (4, *[100] * 6):
            asked = {"model": "model.x", "prompt": "The class", "max_tokens": tokens, "temperature": 1.0}
            with urllib.request.urlopen(
                urllib.request.Request(
                    f"{server.url}/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
                ),
                timeout=60,
            ) as answer:
                assert answer.status == 200
        long = [a for a in server.answers() if a["tokens"] >= 32]
        assert long
        assert all(a["prompt"] > 0 and a["rate"] > 0 and a["load"] >= 0 for a in long)
    finally:
        counted = serve.stop(lab, server)
    assert counted
    assert measured.corrected("serve")


@pytest.mark.slow
def test_a_run_that_measured_a_model_corrects_the_calibration(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `lab run` and `lab apply`: it says how many tokens and how deep; without these it counts for nothing."""
    speed = "'tokens_per_second': 1e6, 'system/load': 0.1"
    measured.lab.write(
        "speed.py",
        f"""\
def told(models): return {{{speed}, 'system/depth': 40, 'system/generated_tokens': 64}}
def silent(models): return {{{speed}}}
""",
    )
    for name, call in (("silent", "silent"), ("told", "told"), ("applied", "told")):
        measured.lab.write(f"conf/experiment/{name}.yaml", f"call: speed:{call}\nmodels: {{m: model.x}}\n")
    assert measured.lab("run", "silent").code == 0
    assert measured.now() == measured.known
    assert measured.lab("run", "told").code == 0
    assert measured.corrected("told-")
    assert measured.lab("apply", "--yes", "--only", "experiment.applied").code == 0
    assert measured.now()["fed"] == 2
    assert measured.now()["last"]["by"].startswith("applied-")


@pytest.mark.slow
def test_an_upgraded_engine_is_told_and_learns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab forecast`, `lab plan` and `--show` say that the calibration is stale; the intervals are twice as wide."""
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr("os.getloadavg", IDLE)
    old = Measured(tmp_path, "llama.cpp", version="0.0.1")
    for seed in map(str, range(3)):
        words = ("generate", "model.x", "The class", "--temperature", "1", "--max-tokens", "200", "--seed", seed)
        assert old.lab(*words).code == 0
    assert old.now() == old.known
    table = old.lab("forecast", "model.x", "--type", "F16").out
    assert f"stale: llama.cpp was 0.0.1 when it was measured and is {old.version} now; run `lab calibrate`" in table
    found = json.loads(old.lab("forecast", "model.x", "--type", "F16", "--json").out)
    decode = found["rows"][0]["decode"]
    assert decode["source"] == "stale calibration"
    assert decode["high"] == pytest.approx(decode["value"] * 1.3)
    assert "by a stale calibration" in old.lab("plan").out
    shown = old.lab("calibrate", "--show", "--json")
    assert (shown.code, "0.0.1" in shown.out) == (1, True)
