"""A GGUF of the declared type, an MLX folder of the declared bits; what fell back is told (S0-4.3-4, S2-3.6-2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import gguf_engine, gguf_quant, imatrix, loading, mlx_quant, store
from lab.core.problem import Problems
from lab.core.steps_engines import Convert, Importance, Quantize, QuantizeMLX
from tests import doubles
from tests.engines import make


def _quantize(tmp_path: Path, source: Path, kind: str, **more: Any) -> Mapping[str, Any]:
    stage = doubles.stage(tmp_path, "quantization.x")
    made: dict[str, Any] = dict(gguf_quant.convert(Convert(str(source), name="tiny"), stage))
    if more.pop("measure", False):
        made |= imatrix.importance(Importance(str(source), tokens=512), stage)
    stage.outcome = made
    view = str(tmp_path / "store" / "models" / "tiny" / kind)
    found = gguf_quant.quantize(Quantize(kind, view, f"tiny-{kind}.gguf", "d1", {"type": kind}, **more), stage)
    return {**found, "view": view, "path": f"{view}/tiny-{kind}.gguf", "converted": made["converted"]}


def test_q4_0_is_smaller_and_its_header_says_so(tiny: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    full = _quantize(tmp_path, tiny, "F16")
    small = _quantize(tmp_path, tiny, "Q4_0")
    assert small["bytes"] < 0.5 * full["bytes"]
    reader = GGUFReader(small["path"])
    assert int(reader.fields["general.file_type"].parts[-1][0]) == 2
    assert {t.tensor_type.name for t in reader.tensors} == {"Q4_0", "F32", "Q6_K"}
    with loading.load(Path(small["view"])) as r:
        assert sum(p.token >= 0 for p in r.generate("The", tokens=8)) > 0


def test_the_same_input_gives_the_same_bytes_and_its_digest_lies_beside_it(tiny: Path, tmp_path: Path) -> None:
    a = _quantize(tmp_path / "a", tiny, "Q4_K_M")
    b = _quantize(tmp_path / "b", tiny, "Q4_K_M")
    assert a["files"] == b["files"]
    assert "fallback" not in a
    beside = store.provenance(Path(a["view"]))
    assert beside
    assert (beside["digest"], beside["facts"]["type"]) == ("d1", "Q4_K_M")


def test_a_silent_fallback_is_told(tmp_path: Path) -> None:
    """Rows of 192 do not fill K-quant blocks of 256: the header says Q4_K_M all the same."""
    narrow = make.model(tmp_path / "narrow", hidden=192, heads=3, kv_heads=3)
    found = _quantize(tmp_path, narrow, "Q4_K_M")
    assert found["fallback"]["blk.0.attn_q.weight"] == "Q5_0"
    assert not any("ffn_down" in name for name in found["fallback"])
    assert store.provenance(Path(found["view"]))["facts"]["fallback"] == found["fallback"]  # type: ignore[index]


def test_one_conversion_serves_every_level_and_a_damaged_one_is_made_anew(tiny: Path, tmp_path: Path) -> None:
    stage = doubles.stage(tmp_path)
    first = gguf_quant.convert(Convert(str(tiny), name="tiny"), stage)["converted"]
    path = Path(first["path"])
    before = path.stat().st_mtime_ns
    assert gguf_quant.convert(Convert(str(tiny), name="tiny"), stage)["converted"] == first
    assert path.stat().st_mtime_ns == before
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert gguf_quant.convert(Convert(str(tiny), name="tiny"), stage)["converted"]["sha256"] == first["sha256"]
    assert store.digest(path) == first["sha256"]


@pytest.mark.slow
def test_types_that_need_an_importance_matrix_get_one_measured_with_mlx(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Problems, match="imatrix: true"):
        _quantize(tmp_path / "without", tiny, "IQ2_XS")
    found = _quantize(tmp_path / "with", tiny, "IQ2_XS", measure=True)
    assert found["bits_per_weight"] < 4
    plain = _quantize(tmp_path / "plain", tiny, "Q2_K")
    weighed = _quantize(tmp_path / "weighed", tiny, "Q2_K", measure=True)
    assert plain["files"] != weighed["files"]


def test_both_formats_of_importance_matrices_are_read(tmp_path: Path) -> None:
    import struct

    import numpy as np

    old = struct.pack("<i", 1) + struct.pack("<i", 3) + b"a.w" + struct.pack("<ii", 2, 4)
    (tmp_path / "old.dat").write_bytes(old + np.arange(4, dtype="<f4").tobytes())
    assert imatrix.read(tmp_path / "old.dat")["a.w"].tolist() == [0.0, 0.5, 1.0, 1.5]
    (tmp_path / "none.dat").write_bytes(b"\x01\x00\x00\x00abc")
    with pytest.raises(Problems, match="no importance matrix"):
        imatrix.read(tmp_path / "none.dat")


def test_a_gguf_of_unquantized_weights_is_taken_as_it_is(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "view"
    folder.mkdir()
    (folder / "tiny.gguf").symlink_to(tiny_gguf)
    found = _quantize(tmp_path, folder, "Q8_0")
    assert found["converted"]["path"] == str(folder / "tiny.gguf")
    assert gguf_engine.types(Path(found["path"]), "Q8_0")["types"]["Q8_0"] > 10


def test_the_table_of_types_is_what_the_installed_llama_cpp_offers() -> None:
    """What the plan allows without asking, the engine really has."""
    from lab.forecast.gguf_types import ALLOWED

    assert set(ALLOWED) <= set(gguf_engine.offered())


def _mlx(tmp_path: Path, source: Path, **more: Any) -> Mapping[str, Any]:
    stage = doubles.stage(tmp_path, "quantization.x")
    view = str(tmp_path / "store" / "models" / "tiny" / "mlx")
    return {**mlx_quant.quantize_mlx(QuantizeMLX(str(source), view, "d1", {}, **more), stage), "view": view}


@pytest.mark.parametrize("bits", [4, 8])
def test_mlx_quantizes_to_bits_and_runs_what_it_made(bits: int, tiny: Path, tmp_path: Path) -> None:
    found = _mlx(tmp_path, tiny, bits=bits)
    assert found["bits_per_weight"] == pytest.approx(bits + 0.51, abs=0.02)
    config = json.loads((Path(found["view"]) / "config.json").read_text())
    assert config["quantization"]["bits"] == bits
    assert (Path(found["view"]) / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    with loading.load(Path(found["view"])) as r:
        assert sum(p.token >= 0 for p in r.generate("The", tokens=4)) > 0


def test_mlx_gives_the_same_bytes_again(tiny: Path, tmp_path: Path) -> None:
    assert _mlx(tmp_path / "a", tiny, bits=4)["files"] == _mlx(tmp_path / "b", tiny, bits=4)["files"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gptq", "awq", "dwq"])
def test_learned_methods_learn_from_the_local_text(method: str, tiny: Path, tmp_path: Path) -> None:
    found = _mlx(tmp_path, tiny, bits=4, method=method, samples=4, sequence=32)
    assert found["calibration"]["tokens"] == 128
    with loading.load(Path(found["view"])) as r:
        assert sum(p.token >= 0 for p in r.generate("The", tokens=4)) > 0


def test_a_learned_method_without_a_text_is_a_problem(tiny: Path, tmp_path: Path) -> None:
    bare = make.shard(tiny, tmp_path / "bare", 1)
    (bare / "calibration.txt").unlink()
    with pytest.raises(Problems, match="needs a text"):
        _mlx(tmp_path, bare, bits=4, method="gptq")


@pytest.mark.slow
@pytest.mark.parametrize(("scaling", "bits", "group"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_microscaling_modes(scaling: str, bits: int, group: int, tiny: Path, tmp_path: Path) -> None:
    found = _mlx(tmp_path, tiny, bits=bits, group_size=group, scaling=scaling)
    assert bits < found["bits_per_weight"] < bits + 1
