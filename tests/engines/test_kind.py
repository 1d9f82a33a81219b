"""What the quantization kind allows, asks for and plans, without any engine (S0-4.3-4, S2-3.6-2, S0-US-002-4)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.host import Host
from lab.core.steps_engines import Convert, Importance, Quantize, QuantizeMLX
from lab.core.steps_models import DropView
from lab.kinds.model import Model
from lab.kinds.quantization import Quantization
from tests.doubles import MemoryWorld

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip


def _context(name: str, facts: Mapping[str, Any] | None = None, **model: Any) -> Any:
    """The context of `quantization.NAME`, whose model is known to be `facts`."""
    of = SimpleNamespace(
        address=Address("model.m"), store="/store", lab={}, lock={"model": facts} if facts else None,
        path=lambda p: p, host=Host(), recorded=lambda ref: None,
    )  # fmt: skip
    return SimpleNamespace(
        address=Address.of("quantization", name), store="/store", lab={"id": "me"}, lock=None, host=Host(),
        declaration=lambda ref: Model.model_validate(model or {"path": "/m"}), of=lambda ref: of,
        recorded=lambda ref: None, path=lambda p: p, content=lambda p: "",
    )  # fmt: skip


def _made(**block: Any) -> Quantization:
    return Quantization.model_validate({"of": "m", **block})


def _steps(block: Quantization, context: Any, action: Action = Action.CREATE, **change: Any) -> list[Any]:
    return list(block.steps(Change(context.address, action, digest="d", **change), context))


def test_a_ladder_is_one_resource_per_level() -> None:
    levels = Quantization.expand("m", {"of": "m", "format": "gguf", "types": ["Q8_0", "q4_k_m"], "tags": ["a"]})
    assert levels == {
        "m.Q8_0": {"of": "m", "format": "gguf", "tags": ["a"], "type": "Q8_0"},
        "m.Q4_K_M": {"of": "m", "format": "gguf", "tags": ["a"], "type": "q4_k_m"},
    }
    mlx = Quantization.expand("x", {"of": "m", "format": "mlx", "bits": [8, 4]})
    assert list(mlx or ()) == ["x.8bit", "x.4bit"]
    assert Quantization.expand("x", {"of": "m", "format": "mlx", "bits": 4}) is None


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"format": "gguf"}, "give `type: Q4_K_M`"),
        ({"format": "gguf", "type": "Q4_KM"}, "did you mean `Q4_K_M`"),
        ({"format": "gguf", "type": "Q4_K_M", "bits": 4}, "`bits` does not belong to `format: gguf`"),
        ({"format": "gguf", "type": "IQ2_XS"}, "set `imatrix: true`"),
        ({"format": "gguf", "types": ["Q4_K", "Q4_K_M"]}, "lists each level once"),
        ({"format": "mlx"}, "give `bits: 4`"),
        ({"format": "mlx", "bits": 7}, "2, 3, 4, 5, 6, 8"),
        ({"format": "mlx", "bits": 4, "group_size": 48}, "32, 64, 128"),
        ({"format": "mlx", "bits": 3, "method": "gptq"}, "2, 4 or 8 bits"),
        ({"format": "mlx", "recipe": "mixed_3_5"}, "did you mean `mixed_3_"),
        ({"format": "mlx", "mode": "mxfp4", "bits": 8}, "no 8 bits in mode mxfp4"),
        ({"format": "gptq", "bits": 4}, "`format: mlx` and `method: gptq`"),
        ({"format": "bitsandbytes", "bits": 4}, "leaves no files"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(block: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as e:
        _made(**block)
    assert said in str(e.value)


@pytest.mark.parametrize(
    ("block", "model", "said"),
    [
        ({"format": "mlx", "bits": 4}, {"format": "gguf", "precision": "F16"}, "Allowed here: format gguf"),
        ({"format": "gguf", "type": "Q4_0"}, {"format": "gguf", "precision": "Q8_0"}, "quantized already (Q8_0)"),
        ({"format": "gguf", "type": "Q4_0"}, {"format": "mlx"}, "quantized already (mlx)"),
        ({"format": "mlx", "bits": 4}, {"format": "gptq"}, "quantized already (gptq)"),
        ({"format": "gguf", "type": "Q4_0"}, {"format": "safetensors", "architecture": "mamba"}, "not mamba"),
        ({"format": "gguf", "type": "Q4_0", "imatrix": True}, {"format": "gguf", "precision": "F16"}, "measured on"),
    ],
)
def test_pairs_that_cannot_work_are_refused_at_plan_time(
    block: dict[str, Any], model: dict[str, Any], said: str
) -> None:
    found = list(_made(**block).check(_context("x", model)))
    assert len(found) == 1
    assert said in found[0][0]
    assert found[0][2]


@pytest.mark.parametrize(
    ("block", "model"),
    [
        ({"format": "gguf", "type": "Q4_0"}, {"format": "gguf", "precision": "F16"}),
        ({"format": "gguf", "type": "Q4_0"}, {"format": "safetensors", "architecture": "qwen3"}),
        ({"format": "mlx", "bits": 4}, {"format": "safetensors", "architecture": "mamba"}),
        ({"format": "gguf", "type": "Q4_0"}, {}),
    ],
)
def test_pairs_that_work_pass(block: dict[str, Any], model: dict[str, Any]) -> None:
    assert list(_made(**block).check(_context("x", model))) == []


def test_a_gguf_declared_by_its_file_name_is_known_before_it_is_fetched() -> None:
    found = list(_made(format="mlx", bits=4).check(_context("x", url="https://host/m.gguf")))
    assert "is a GGUF" in found[0][0]


def test_a_gguf_is_converted_then_quantized_into_a_view_of_its_own() -> None:
    block, context = _made(format="gguf", type="Q4_K_M"), _context("ladder.Q4_K_M")
    convert, quantize = _steps(block, context)
    assert convert == Convert("/store/models/m/original", "AUTO", "m", "/store")
    assert isinstance(quantize, Quantize)
    assert (quantize.out, quantize.file) == ("/store/models/m/ladder.Q4_K_M", "m-Q4_K_M.gguf")
    assert (quantize.digest, quantize.facts) == ("d", {"of": "model.m", "format": "gguf", "type": "Q4_K_M"})
    only = _steps(_made(format="gguf", type="F16"), context)[0]
    assert only.type == "F16"


def test_an_importance_matrix_is_measured_before_or_taken_from_a_file() -> None:
    steps = _steps(_made(format="gguf", type="IQ2_XS", imatrix={"text": "t.txt", "tokens": 999}), _context("x"))
    assert [type(s) for s in steps] == [Convert, Importance, Quantize]
    assert (steps[1].text, steps[1].tokens) == ("t.txt", 999)
    taken = _steps(_made(format="gguf", type="IQ2_XS", imatrix={"file": "m.dat"}), _context("x"))
    assert [type(s) for s in taken] == [Convert, Quantize]
    assert taken[1].imatrix == "m.dat"


def test_mlx_is_one_step_and_destroy_drops_the_view_only() -> None:
    (step,) = _steps(_made(format="mlx", bits=4, method="awq"), _context("x"))
    assert isinstance(step, QuantizeMLX)
    assert (step.bits, step.group_size, step.method) == (4, 64, "awq")
    (gone,) = _steps(_made(format="mlx", bits=4), _context("x"), Action.DESTROY, recorded={"view": "/old"})
    assert gone == DropView("/old")


@pytest.mark.parametrize(
    "block",
    [
        {"format": "gguf", "type": "Q4_K_M"},
        {"format": "gguf", "type": "IQ2_XS", "imatrix": True},
        {"format": "mlx", "bits": 4},
        {"format": "mlx", "mode": "mxfp4"},
        {"format": "mlx", "recipe": "mixed_3_6"},
    ],
)
def test_every_step_can_be_told_in_a_line(block: dict[str, Any]) -> None:
    assert all(step.verb in step.describe() for step in _steps(_made(**block), _context("x")))


def test_type_and_bits_are_fixed_so_that_a_change_replaces() -> None:
    assert {"type", "bits", "format", "group_size", "of"} <= Quantization.fixed
    assert Quantization.derived


def test_defaults_never_enter_the_digest() -> None:
    """A golden value: a field added with a default changes no old digest."""
    plain = {"of": "model.m", "format": "gguf", "type": "Q4_K_M"}
    assert _made(format="gguf", type="Q4_K_M").inputs() == plain
    assert _made(format="gguf", type="Q4_K_M", description="x", tags=["a"]).inputs() == plain


def test_sizes_come_from_the_architecture_and_narrow_rows_are_told() -> None:
    """An 8B llama in Q4_K_M is 4.92 GB, as published; the conversion beside it is told as the disk's peak."""
    facts = {"format": "safetensors", "config": LLAMA, "params": 8_030_261_248, "tensor_bytes": 16_060_522_496}
    context = _context("x", facts)
    change = Change(context.address, Action.CREATE)
    found = _made(format="gguf", type="Q4_K_M").forecast(change, context)
    assert found.disk
    assert found.disk.value == pytest.approx(4.92e9, rel=0.003)
    assert found.disk_peak
    assert found.disk_peak.value > 20e9
    mlx = _made(format="mlx", bits=4).forecast(change, context)
    assert mlx.disk
    assert mlx.disk.value == pytest.approx(4.52e9, rel=0.01)
    narrow = _context("x", {**facts, "config": {**LLAMA, "hidden_size": 1000}})
    assert "1000" in _made(format="gguf", type="Q4_K_M").forecast(change, narrow).notes[0]
    assert _made(format="gguf", type="Q8_0").forecast(change, narrow).notes == ()


def test_what_is_there_is_observed_with_its_digest_and_hashes() -> None:
    block, context = _made(format="gguf", type="Q4_K_M"), _context("x")
    view = block.view(context)
    facts = {**block.declared(), "bits_per_weight": 4.9}
    beside = {"facts": facts, "files": {"m.gguf": "aa"}, "digest": "d"}
    blob = "/store/blobs/sha256/aa/aa"
    world = MemoryWorld({
        "/store/.lab.json": {"content": "{}"},
        f"{view}/.lab.json": {"content": json.dumps(beside)},
        f"{view}/m.gguf": {"link": "../../../blobs/sha256/aa/aa"},
        blob: {"content": "", "sha256": "aa"},
    })  # fmt: skip
    found = block.observe(world, context)
    assert found == {**facts, "view": view, "files": {"m.gguf": "aa"}, "digest": "d"}
    assert block.wanted(context).items() <= found.items()
    world.files[blob]["sha256"] = "bb"
    assert (block.observe(world, context) or {})["files"] == {"m.gguf": "bb"}
    assert block.observe(MemoryWorld({"/store/.lab.json": {"content": "{}"}}), context) is None


@pytest.mark.parametrize("recipe", sorted((Path(__file__).parents[2] / "recipes" / "quantization").glob("*.yaml")))
def test_every_recipe_is_a_declaration_that_works(recipe: Path) -> None:
    import yaml

    block = yaml.safe_load(recipe.read_text().replace("<model>", "m"))
    context = _context("x", {"format": "safetensors", "architecture": "llama", "config": LLAMA})
    context.content = lambda path: "abc"
    for level in (Quantization.expand("x", block) or {"x": block}).values():
        made = Quantization.model_validate(level)
        assert list(made.check(context)) == []
        assert _steps(made, context)


def test_planning_imports_no_engine() -> None:
    code = (
        "import sys; from lab.kinds.quantization import Quantization as Q\n"
        "Q.model_validate({'of': 'm', 'format': 'gguf', 'type': 'Q4_K_M'})\n"
        "print([m for m in ('llama_cpp', 'mlx', 'gguf', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert out.stdout.strip() == "[]"
