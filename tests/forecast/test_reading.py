"""An architecture is the same whether its config, its GGUF header, its lock or a table tells it.

Proves: issue 7, families told by header and config, old MLA files told apart, unknown said as unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.adapters import gguf_header, gguf_random, machine
from lab.core.host import GIB, Host
from lab.core.problem import Problems
from lab.forecast import Architecture, cache, catalogue, inventory, reading, resources, weights

QWEN = {
    "model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
    "tie_word_embeddings": False, "max_position_embeddings": 40960,
}  # fmt: skip
R1 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "intermediate_size": 18432, "vocab_size": 129280, "tie_word_embeddings": False,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128, "num_nextn_predict_layers": 1,
}  # fmt: skip


def test_a_config_tells_what_the_catalogue_knows() -> None:
    """Qwen3-8B and DeepSeek-R1 by their config.json weigh and cache the same as by name."""
    for config, name in ((QWEN, "Qwen3-8B"), (R1, "DeepSeek-R1")):
        told, known = reading.from_config(config), catalogue.find(name)
        assert known
        assert weights.gguf(told, "Q4_K_M") == weights.gguf(known, "Q4_K_M")
        assert cache.kv(told, 32768) == cache.kv(known, 32768)
        assert told.attention == known.attention


def test_a_header_tells_what_it_was_written_from(tmp_path: Path) -> None:
    """A GGUF's own bytes are exact, and its shape gives the cache of the architecture behind it."""
    small = Architecture(family="qwen3", layers=2, width=256, heads=4, heads_kv=2, head_dim=64, ffn=512, vocab=1024,
                         tied=False, context=2048)  # fmt: skip
    path = tmp_path / "m.gguf"
    gguf_random.write(path, small, "Q8_0")
    header = gguf_header.read(path)
    told = reading.from_gguf(header.values, [(t.name, t.shape, t.type) for t in header.tensors])
    own = weights.own(told)
    assert own
    assert own.value == sum(t.bytes for t in header.tensors)
    assert own.low == own.high
    assert cache.kv(told, 1024) == cache.kv(small, 1024)
    assert told.parameters == sum(t.weights for t in inventory.tensors(small))


def test_an_old_mla_file_is_told_by_its_header() -> None:
    """Without `attn_k_b` the cache holds whole heads: DeepSeek-R1's 70,272 bytes a token become 71 times as many."""
    meta = {"general.architecture": "deepseek2", "deepseek2.block_count": 61, "deepseek2.attention.head_count": 128,
            "deepseek2.attention.head_count_kv": 128, "deepseek2.attention.kv_lora_rank": 512,
            "deepseek2.attention.key_length": 192, "deepseek2.attention.value_length": 128,
            "deepseek2.rope.dimension_count": 64, "deepseek2.embedding_length": 7168}  # fmt: skip
    old = reading.from_gguf(meta, [("blk.0.attn_kv_b.weight", (512, 32768), "Q4_K")])
    new = reading.from_gguf(meta, [("blk.0.attn_k_b.weight", (128, 512, 128), "Q4_K")])
    per_old, per_new = cache.kv(old, 1024), cache.kv(new, 1024)
    assert per_new
    assert per_old
    assert per_new.value == 70_272 * 1024
    assert per_old.value == 61 * 128 * (192 + 128) * 2 * 1024


def test_a_lock_gives_back_what_was_written() -> None:
    """Facts written for every known model read back to the same architecture."""
    for name in catalogue.names():
        known = catalogue.find(name)
        assert known
        again = reading.from_lock(yaml.safe_load(yaml.safe_dump(known.facts())), known.name)
        assert again.with_(source=known.source, unknown=known.unknown) == known


@pytest.mark.parametrize(
    ("key", "value"), [("width", "9" * 400), ("ffn", 2**64), ("layers", 2**31), ("heads", -1), ("ssm", {"heads": "x"})]
)
def test_what_a_lock_says_and_cannot_be_is_not_known(key: str, value: object) -> None:
    """A text or a number beyond all reason is no size: counting with it took minutes and all memory."""
    whole = reading.from_config(QWEN).facts()
    found = reading.from_lock({**whole, key: value})
    assert getattr(found, key) == getattr(Architecture(), key)
    assert [u for u in found.unknown if f"the lock's {key} cannot be" in u]
    assert reading.from_lock(whole).unknown == ()


def test_what_is_not_known_is_said_and_not_guessed() -> None:
    """An unknown model_type, a tower and a config with holes say what is missing; nothing raises."""
    strange = reading.from_config({"model_type": "martian", "hidden_size": 64})
    assert weights.gguf(strange, "Q4_K_M") is None
    assert any("martian" in u for u in strange.unknown)
    seeing = reading.from_config({"model_type": "gemma3", "text_config": QWEN, "vision_config": {}})
    assert any("tower" in u for u in seeing.unknown)
    assert inventory.missing(reading.from_config({})) != ()
    assert cache.kv(reading.from_config({}), 4096) is None


def test_every_host_file_is_a_host_and_comes_with_lab() -> None:
    """conf/host and the copies inside the package are the same, and each is a host with memory and bandwidth."""
    conf = Path(__file__).parents[2] / "conf"
    shipped = conf.parent / "lab" / "declare" / "builtin" / "host"
    files = sorted((conf / "host").glob("*.yaml"))
    assert len(files) >= 30
    for file in files:
        assert file.read_text() == (shipped / file.name).read_text()
        host = machine.declared(conf, file.stem)
        assert host.memory
        assert host.bandwidth or host.gpu_bandwidth
    assert machine.declared(conf, "mac_studio_512").wired_limit == 480 * GIB
    with pytest.raises(Problems, match="mac_studio_512"):
        machine.declared(conf, "mac_studio_521")


def test_this_machine_is_read() -> None:
    """Cores, memory, platform and system are known, and what is free is no more than there is."""
    host = machine.read()
    assert isinstance(host, Host)
    assert host.memory
    assert host.cores
    assert host.platform.startswith(("linux", "osx"))
    assert 0 < machine.available() <= host.memory


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen3_next", "linear_num_value_heads": "many", "linear_num_key_heads": 1},
        {"model_type": "llama", "mamba_num_heads": [1]},
        {"general.architecture": "llama", "llama.block_count": float("inf")},
        {"model_type": "llama", "num_hidden_layers": 10**30, "hidden_size": 4},
    ],
)
def test_a_config_that_cannot_be_is_not_known_rather_than_a_fault(config: dict[str, Any]) -> None:
    assert reading.from_facts({"config": config}).unknown


def test_a_lock_whose_model_is_no_mapping_says_nothing_of_its_use() -> None:
    assert resources.model_use({"model": 1.5}, None, 512) == resources.model_use(None, None, 512)
    odd = {"model": {"mlx": True, "quantization": {"bits": "four", "group_size": []}}}
    assert (resources.model_use(odd, None, 1).bits, resources.model_use(odd, None, 1).group_size) == (None, None)
