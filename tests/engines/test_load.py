"""Models for scripts: the form, device and reason by policy, the model with its tokenizer, and files that are damaged.

Proves S1-R4.2-1.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from lab.app.lab import Lab
from lab.app.load import ModelLoadError, choose, load
from lab.core.host import GIB, Host
from lab.core.problem import Problems
from lab.forecast import choice
from lab.forecast.choice import Form
from tests.models.conflab import Folder

MAC = Host(name="mac", platform="osx-arm64", gpu="metal", memory=64 * GIB)
GPU = Host(name="gpu", gpu="cuda", memory=128 * GIB, gpu_memory=80 * GIB)
CPU = Host(name="cpu", memory=64 * GIB)
LARGE, SMALL = "Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen2.5-7B-Instruct"


@pytest.fixture
def lab(tmp_path: Path) -> Folder:
    """A 14B and a 7B as they are published; nothing of them is here."""
    folder = Folder(tmp_path / "lab")
    folder.declare("large", hub=LARGE)
    folder.declare("small", hub=SMALL)
    return folder


def _ladders(lab: Folder, *names: str) -> None:
    for name in names:
        lab.declare(f"{name}_gguf", "quantization", of=name, format="gguf", types=["Q8_0", "Q4_K_M"])
        lab.declare(f"{name}_mlx", "quantization", of=name, format="mlx", bits=[8, 4])


@pytest.mark.parametrize(
    ("host", "device", "large", "small"),
    [
        (MAC, "mps", ("quantization.large_mlx.4bit", "mlx"), "mlx"),
        (GPU, "cuda", ("quantization.large_gguf.Q4_K_M", "llama.cpp"), "transformers"),
        (CPU, "cpu", ("quantization.large_gguf.Q4_K_M", "llama.cpp"), "mlx"),
    ],
)
def test_a_14b_is_taken_in_4_bits_and_a_7b_is_not(
    host: Host, device: str, large: tuple[str, str], small: str, lab: Folder
) -> None:
    _ladders(lab, "large", "small")
    found = choose(Lab(lab.root), "model.large", host=host)
    assert (found.address, found.engine) == large
    assert (found.device, found.bits) == (device, 0)
    assert found.why.startswith("14.8B parameters are above 13B")
    other = choose(Lab(lab.root), "model.small", host=host)
    assert (other.address, other.engine, other.device, other.bits) == ("model.small", small, device, 0)
    # A form that is named is the form that is loaded.
    assert choose(Lab(lab.root), "quantization.large_gguf.Q8_0", host=host).address == "quantization.large_gguf.Q8_0"


def test_where_no_4_bit_form_is_declared_mlx_makes_one_and_nothing_else_does(lab: Folder) -> None:
    found = choose(Lab(lab.root), "model.large", host=MAC)
    assert (found.address, found.engine, found.bits) == ("model.large", "mlx", 4)
    with pytest.raises(Problems) as e:
        choose(Lab(lab.root), "model.large", host=GPU)
    assert "conf/quantization/large_4bit.yaml: {of: large, format: gguf, type: Q4_K_M}" in str(e.value)
    # The declaration that is advised is one that Lab takes, and is chosen.
    lab.declare("large_4bit", "quantization", of="large", format="gguf", type="Q4_K_M")
    assert choose(Lab(lab.root), "model.large", host=GPU).address == "quantization.large_4bit"


def test_the_threshold_is_the_labs(tmp_path: Path) -> None:
    lab = Folder(tmp_path / "lab", loading={"four_bit_above": 20e9})
    lab.declare("large", hub=LARGE)
    assert choose(Lab(lab.root), "model.large", host=CPU).bits == 0
    (lab.root / "conf/lab.yaml").write_text("lab: {name: t, id: lab-for-tests, loading: {four_bit_above: -1}}\n")
    code, text = lab.run("validate")
    assert code == 1
    assert "four_bit_above" in text


def test_what_memory_cannot_hold_is_taken_in_4_bits_or_refused(lab: Folder) -> None:
    small = CPU.model_copy(update={"memory": 12 * GIB})
    found = choose(Lab(lab.root), "model.small", host=small)
    assert (found.address, found.bits) == ("model.small", 4)
    assert re.match(r"unquantized it needs 1\d\.\d GiB", found.why)
    with pytest.raises(Problems, match=r"model\.small does not fit this machine's memory"):
        choose(Lab(lab.root), "model.small", host=CPU.model_copy(update={"memory": 4 * GIB}))


def _form(name: str, format: str = "safetensors", bits: int | None = None, **more: Any) -> Form:
    return Form(name, format, bits, **more)


def test_what_is_made_goes_before_what_is_only_declared() -> None:
    forms = [_form("quantization.m", "mlx", 4, made=False), _form("quantization.g", "gguf", 4)]
    assert choice.choose(_form("model.x"), 10**11, forms, MAC, 13e9).address == "quantization.g"
    assert choice.choose(_form("model.x"), 10**11, forms, MAC, 13e9, engine="mlx").address == "quantization.m"


def test_a_gpu_that_mlx_cannot_use_is_given_no_mlx_form_unasked() -> None:
    forms = [_form("quantization.m", "mlx", 4)]
    with pytest.raises(Problems, match="no 4-bit form of it is declared"):
        choice.choose(_form("model.x"), 10**11, forms, GPU, 13e9)
    asked = choice.choose(_form("model.x"), 10**11, forms, GPU, 13e9, engine="mlx")
    assert (asked.address, asked.device) == ("quantization.m", "cpu")


def test_weights_that_are_quantized_already_are_taken_as_they_are() -> None:
    found = choice.choose(_form("model.x", "gguf", 8), 10**11, [_form("quantization.q", "gguf", 4)], CPU, 13e9)
    assert (found.address, found.bits) == ("model.x", 0)
    kinds = ("Q4_K_M", "IQ4_XS", "MXFP4_MOE", "Q8_0", "IQ2_XXS", "TQ1_0", "F16", "BF16")
    assert [choice.gguf_bits(k) for k in kinds] == [4, 4, 4, 8, 2, 1, None, None]


def _here(folder: Path, model: Path, **settings: Any) -> Folder:
    lab = Folder(folder, **settings)
    lab.declare("tiny", path=str(model), place="copy")
    lab.ok("apply", "--yes")
    return lab


def test_a_script_gets_the_model_with_its_tokenizer(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab = _here(tmp_path / "lab", tiny)
    monkeypatch.chdir(lab.root / "conf")
    with caplog.at_level(logging.INFO, "lab.load"):
        model, tokenizer = load("tiny")
    assert "model.tiny by mlx on" in caplog.text
    with model:
        tokens = tokenizer.encode("The class statement")
        assert tokenizer.decode(tokens).endswith("The class statement")
        assert tokenizer.chat("Hello").startswith("<|user|>")
        assert "".join(p.text for p in model.generate("The class", tokens=8))


def test_quantized_while_it_is_loaded_it_is_what_the_declaration_would_have_made(tmp_path: Path, tiny: Path) -> None:
    import numpy as np

    lab = _here(tmp_path / "lab", tiny, loading={"four_bit_above": 1000})
    model, tokenizer = load("model.tiny", lab=Lab(lab.root))
    with model:
        tokens = tokenizer.encode("The class statement is")
        logits = model.logits(tokens)
    lab.declare("tiny_4bit", "quantization", of="tiny", format="mlx", bits=4)
    lab.ok("apply", "--yes")
    assert choose(Lab(lab.root), "model.tiny").address == "quantization.tiny_4bit"
    with load("model.tiny", lab=Lab(lab.root))[0] as made:
        assert np.array_equal(made.logits(tokens), logits)
    (lab.root / "conf/quantization/tiny_4bit.yaml").unlink()
    (lab.root / "conf/lab.yaml").write_text(f"lab: {{name: t, id: lab-for-tests, store: {lab.store}}}\n")
    with load("model.tiny", lab=Lab(lab.root))[0] as whole:
        assert not np.array_equal(whole.logits(tokens), logits)


@pytest.mark.parametrize("what", ["safetensors", "config", "gguf"])
def test_a_damaged_file_is_an_error_of_its_own_type_and_leaves_a_line(
    what: str, tmp_path: Path, tiny: Path, tiny_gguf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = _here(tmp_path / "lab", tiny_gguf if what == "gguf" else tiny)
    name = {"safetensors": "model.safetensors", "config": "config.json", "gguf": "tiny.gguf"}[what]
    blob = next((lab.store / "models/tiny/original").glob(name)).resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:200])
    with pytest.raises(ModelLoadError) as e:
        load("model.tiny", lab=Lab(lab.root))
    assert "cannot load" in e.value.problems[0].summary
    assert e.value.problems[0].why
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.name == "lab.load"
    assert record.getMessage().startswith("model.tiny cannot be loaded: ")
    assert record.getMessage() in (lab.root / "state/logs/load.log").read_text()


def test_what_is_not_applied_yet_says_so(lab: Folder) -> None:
    _ladders(lab, "large")
    with pytest.raises(Problems, match=r"quantization\.large_.*4.* is not there yet") as e:
        load("model.large", lab=Lab(lab.root))
    assert not isinstance(e.value, ModelLoadError)
