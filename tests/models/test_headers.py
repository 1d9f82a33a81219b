"""What a model is, is read from its headers: right for every format, quick, not undone by garbage. (S0-US-004-4)"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from lab.adapters import gguf_header, headers, tensors_header
from lab.adapters.gguf_header import Broken
from lab.core.facts import digest
from lab.core.problem import Problems
from tests.models import make


def zeros(*shape: int, kind: str = "float16") -> Any:
    return numpy.zeros(shape, kind)


def test_safetensors_in_one_file_and_in_shards_say_the_same(tmp_path: Path) -> None:
    params = make.safetensors(tmp_path / "one")
    make.safetensors(tmp_path / "three", shards=3)
    one, three = headers.read(tmp_path / "one"), headers.read(tmp_path / "three")
    assert one["params"] == three["params"] == params
    assert (one["format"], one["precision"], one["architecture"], one["context"]) == (
        "safetensors",
        "F16",
        "llama",
        512,
    )
    assert one["license"] == "apache-2.0"
    assert one["chat_template"] == three["chat_template"]
    assert one["tokenizer"] == three["tokenizer"]


def test_a_gguf_file_says_the_same_as_its_own_library(tmp_path: Path) -> None:
    from gguf import GGUFReader

    params = make.gguf(tmp_path / "m.gguf")
    found = headers.read(tmp_path / "m.gguf")
    reader = GGUFReader(tmp_path / "m.gguf")
    assert found["params"] == params
    assert found["tensor_bytes"] == sum(int(t.n_bytes) for t in reader.tensors)
    assert (found["format"], found["precision"], found["context"], found["license"]) == ("gguf", "Q8_0", 2048, "mit")
    assert found["types"] == {"F32": 1, "Q8_0": 1}
    assert found["config"]["vocab_size"] == 96
    make.safetensors(tmp_path / "st")
    assert found["chat_template"] == headers.read(tmp_path / "st")["chat_template"], "comparable across formats"


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16", "BF16", "F32"])
def test_gguf_types_have_the_bytes_their_library_gives_them(tmp_path: Path, kind: str) -> None:
    from gguf import GGUFReader

    make.gguf(tmp_path / "m.gguf", kind=kind)
    found = headers.read(tmp_path / "m.gguf")
    assert found["tensor_bytes"] == sum(int(t.n_bytes) for t in GGUFReader(tmp_path / "m.gguf").tensors)


def test_every_type_has_the_size_that_gguf_itself_gives() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for number, (name, block, size) in gguf_header.TYPES.items():
        kind = GGMLQuantizationType(number)
        assert (kind.name, *GGML_QUANT_SIZES[kind]) == (name, block, size)


def test_packed_weights_count_as_the_weights_they_hold(tmp_path: Path) -> None:
    mlx = {
        "a.weight": zeros(64, 512 * 4 // 32, kind="uint32"), "a.scales": zeros(64, 8), "a.biases": zeros(64, 8),
        "b.weight": zeros(64, 512 * 8 // 32, kind="uint32"), "b.scales": zeros(64, 8), "b.biases": zeros(64, 8),
        "norm.weight": zeros(512),
    }  # fmt: skip
    bits = {"bits": 4, "group_size": 64, "b": {"bits": 8, "group_size": 64}}
    make.safetensors(tmp_path / "mlx", {"quantization": bits}, tensors=mlx)
    found = headers.read(tmp_path / "mlx")
    assert found["params"] == 2 * 64 * 512 + 512
    assert found["format"] == "mlx"

    for method in ("gptq", "awq"):
        packed = {
            "q.qweight": zeros(512 * 4 // 32, 64, kind="int32"), "q.qzeros": zeros(4, 8, kind="int32"),
            "q.scales": zeros(4, 64), "q.g_idx": zeros(512, kind="int32"), "norm.weight": zeros(512),
        }  # fmt: skip
        config = {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128}}
        make.safetensors(tmp_path / method, config, tensors=packed)
        found = headers.read(tmp_path / method)
        assert (found["format"], found["params"], found["precision"]) == (method, 512 * 64 + 512, "4-bit g128")


def test_a_real_mlx_quantization_counts_its_parameters_right(tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    weights = mx.random.normal((128, 256))
    packed, scales, biases = mx.quantize(weights, group_size=64, bits=3)
    tensors = {"l.weight": packed, "l.scales": scales, "l.biases": biases}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors, {"format": "mlx"})
    (tmp_path / "config.json").write_text(json.dumps({**make.CONFIG, "quantization": {"bits": 3, "group_size": 64}}))
    found = headers.read(tmp_path)
    assert (found["params"], found["precision"], found["format"]) == (128 * 256, "3-bit g64", "mlx")


def test_a_vocabulary_of_300_000_words_takes_no_time(tmp_path: Path) -> None:
    make.gguf(tmp_path / "m.gguf", tokens=300_000)
    start = time.process_time()
    found = headers.read(tmp_path / "m.gguf")
    assert time.process_time() - start < 1
    assert found["config"]["vocab_size"] == 300_000


def test_several_whole_ggufs_are_variants_and_a_split_one_is_summed(tmp_path: Path) -> None:
    for kind in ("Q8_0", "F16"):
        make.gguf(tmp_path / f"m-{kind}.gguf", kind=kind)
    assert headers.read(tmp_path)["variants"] == {"m-F16.gguf": "F16", "m-Q8_0.gguf": "Q8_0"}


def garbage() -> list[bytes]:
    rng = random.Random(5)
    count = struct.Struct("<Q").pack
    start = b"GGUF" + struct.pack("<I", 3)
    text = count(3) + b"key"
    out = [b"", b"GGUF", start, start + count(2**63) + count(2**63), start + count(0) + count(2**62)]
    out += [start + count(0) + count(1) + count(2**63)]
    out += [
        start + count(0) + count(1) + text + struct.pack("<I", 9) + struct.pack("<I", t) + count(n)
        for t in (0, 8, 9, 12)
        for n in (2**31, 2**63)
    ]
    nested = struct.pack("<I", 9) + (struct.pack("<I", 9) + count(900)) * 4
    out += [start + count(0) + count(1) + text + nested + bytes(50_000)]
    out += [start + count(1) + count(0) + text + struct.pack("<I", n) + count(2**60) * 9 for n in (2, 8, 2**31)]
    out += [
        start
        + count(0)
        + count(1)
        + text
        + struct.pack("<I", 9)
        + struct.pack("<I", 8)
        + count(7_000_000)
        + bytes(8 << 20)
    ]
    out += [start + rng.randbytes(4096) for _ in range(50)]
    return out


def test_garbage_that_calls_itself_gguf_is_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    real = tmp_path / "real.gguf"
    make.gguf(real)
    whole, rng = real.read_bytes(), random.Random(1)
    cases = garbage()
    for _ in range(60):
        spoiled = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            spoiled[rng.randrange(min(len(spoiled), 3000))] = rng.randrange(256)
        cases.append(bytes(spoiled[: rng.randint(0, len(spoiled))]) if rng.random() < 0.5 else bytes(spoiled))
    file = tmp_path / "m.gguf"
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in cases:
        file.write_bytes(data)
        try:
            gguf_header.read(file)
        except Broken:
            continue
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "in KiB"
    file.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Problems, match=r"m\.gguf is damaged"):
        headers.read(file)
    file.write_bytes(whole[:4] + whole[4:8][::-1] + whole[8:])
    with pytest.raises(Problems, match="big-endian"):
        headers.facts({"named.gguf": file})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 50) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 5) + b"{nope",
        struct.pack("<Q", 12) + b'{"a": {"x":1}'[:12],
        struct.pack("<Q", 60) + b'{"a":{"dtype":"F16","shape":[-1],"data_offsets":[0,2]}}     ',
        struct.pack("<Q", 9_000) + b"[" * 9_000,
    ],
)
def test_garbage_that_calls_itself_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(data)
    with pytest.raises(Broken):
        tensors_header.read(file)
    with pytest.raises(Problems, match="damaged"):
        headers.read(tmp_path)


def test_a_cut_off_safetensors_file_is_damaged(tmp_path: Path) -> None:
    make.safetensors(tmp_path)
    file = tmp_path / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(Problems, match=r"model\.safetensors is damaged"):
        headers.read(tmp_path)


def test_strange_configs_are_no_obstacle(tmp_path: Path) -> None:
    make.safetensors(tmp_path)
    for text in (
        "[]",
        '{"quantization": 5, "quantization_config": []}',
        '{"text_config": {}}',
        '{"vocab_size": "many"}',
    ):
        (tmp_path / "config.json").write_text(text)
        assert headers.read(tmp_path)["params"]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Problems, match="not valid JSON"):
        headers.read(tmp_path)


@pytest.mark.parametrize("parts", ["two", 1.5, [1], None])
def test_what_is_no_count_of_parts_is_none(parts: Any) -> None:
    header = gguf_header.Header(3, {"general.architecture": "llama", "split.count": parts}, (), 64)
    found = headers.from_gguf({"a.gguf": header, "b.gguf": header})
    assert set(found["variants"]) == {"a.gguf", "b.gguf"}


def test_what_no_ledger_could_hold_is_left_out(tmp_path: Path) -> None:
    """Infinity, what is no number, and half characters: JSON on disk may have them, a record may not."""
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama", "a": NaN, "b": [Infinity], "c": "\\ud800", "d": 1}')
    found = headers.facts({"config.json": config})
    assert found["config"] == {"model_type": "llama", "d": 1}
    digest(found)
