"""safetensors become a GGUF that gguf, llama.cpp and tokenizers agree with (S0-4.3-4)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lab.adapters import gguf_convert, gguf_vocab, loading
from lab.core.problem import Problems
from tests.engines import make

TEXT = "The class statement defines a class object; it's 2026, naïve café 日本語 x=1\n\n  if True:\n\treturn {'a': 1}"


def test_the_same_weights_give_the_same_bytes_however_they_are_sharded(tiny: Path, tmp_path: Path) -> None:
    first = make.gguf(tiny, tmp_path / "a.gguf")
    again = make.gguf(tiny, tmp_path / "b.gguf")
    sharded = make.gguf(make.shard(tiny, tmp_path / "shards"), tmp_path / "c.gguf")
    sums = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (first, again, sharded)}
    assert len(sums) == 1


def test_gguf_reads_back_the_very_numbers(tiny: Path, tmp_path: Path) -> None:
    """The reader of the gguf package finds every tensor, and BF16 stays BF16 bit for bit."""
    from gguf import GGUFReader

    reader = GGUFReader(make.gguf(tiny, tmp_path / "a.gguf"))
    there = {t.name: t for t in reader.tensors}
    source = {t.name: t for t in gguf_convert.tensors(tiny)}
    assert len(there) == len(source)
    down = source["model.layers.1.mlp.down_proj.weight"]
    with open(down.file, "rb") as f:
        f.seek(down.start)
        assert f.read(down.end - down.start) == there["blk.1.ffn_down.weight"].data.tobytes()
    assert str(bytes(reader.fields["general.architecture"].parts[-1]), "utf-8") == "llama"


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_llama_cpp_and_mlx_agree_on_logits(architecture: str, tmp_path: Path) -> None:
    """On the same weights in F32 no logit differs by more than 1e-3 (DC-7); in F16 by more than 0.03."""
    import numpy as np

    folder = make.model(tmp_path / architecture, architecture=architecture)
    with loading.load(folder, exact=True) as mlx:
        ids = mlx.tokenize(TEXT)
        expected = mlx.logits(ids)
    assert np.abs(expected).max() > 1
    for kind, most in (("F32", 1e-3), ("F16", 0.03)):
        with loading.load(make.gguf(folder, tmp_path / f"{kind}.gguf", kind), exact=True) as llama:
            assert llama.tokenize(TEXT) == ids
            assert np.abs(llama.logits(ids) - expected).max() < most


def test_llama_cpp_splits_text_as_tokenizers_does(tiny: Path, tiny_gguf: Path) -> None:
    from tokenizers import Tokenizer

    with loading.load(tiny_gguf) as llama:
        assert llama.tokenize(TEXT) == Tokenizer.from_file(str(tiny / "tokenizer.json")).encode(TEXT).ids
        assert llama.detokenize(llama.tokenize(TEXT)) == TEXT


def _changed(tiny: Path, tmp_path: Path, **config: object) -> Path:
    folder = make.shard(tiny, tmp_path / "changed", 1)
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **config}))
    return folder


def test_other_architectures_are_sent_to_llama_cpps_own_converter(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Problems, match="convert_hf_to_gguf"):
        make.gguf(_changed(tiny, tmp_path, architectures=["MambaForCausalLM"]), tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_quantized_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Problems, match="unquantized weights only"):
        make.gguf(_changed(tiny, tmp_path, quantization={"bits": 4, "group_size": 64}), tmp_path / "x.gguf")


def test_a_file_cut_short_is_a_problem_and_leaves_no_gguf(tiny: Path, tmp_path: Path) -> None:
    folder = make.shard(tiny, tmp_path / "cut", 1)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(Problems, match="cut short"):
        make.gguf(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken"])
def test_known_ways_of_splitting_have_llama_cpps_names(name: str) -> None:
    split = {"type": "Split", "pattern": {"Regex": gguf_vocab.PRE_TOKENIZERS[name]}}
    steps = [split, {"type": "ByteLevel", "use_regex": False}]
    assert gguf_vocab.pre_tokenizer({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}) == name


def test_an_unknown_way_of_splitting_is_refused_not_guessed() -> None:
    split = {"type": "Split", "pattern": {"Regex": r"\w+"}}
    steps = [split, {"type": "ByteLevel", "use_regex": False}]
    with pytest.raises(Problems, match="cannot be converted"):
        gguf_vocab.pre_tokenizer({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}})


def test_llama_3s_rotary_factors_are_as_its_converter_writes_them(tiny: Path, tmp_path: Path) -> None:
    """With rope scaling of the kind llama3, both engines still agree to 1e-3."""
    import numpy as np

    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder = _changed(tiny, tmp_path, rope_scaling=scaling)
    with loading.load(folder, exact=True) as mlx:
        ids = mlx.tokenize(TEXT * 2)
        expected = mlx.logits(ids)
    with loading.load(make.gguf(folder, tmp_path / "r.gguf", "F32"), exact=True) as llama:
        assert np.abs(llama.logits(ids) - expected).max() < 1e-3
    with loading.load(make.gguf(tiny, tmp_path / "plain.gguf", "F32"), exact=True) as plain:
        assert np.abs(plain.logits(ids) - expected).max() > 0.01
