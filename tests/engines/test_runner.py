"""One contract for every runner: llama.cpp, MLX and, where PyTorch is installed, Transformers answer it alike.

DC-7, S0-4.2-2, S0-4.2-3.
"""

from __future__ import annotations

import builtins
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.adapters import hf, loading
from lab.core.problem import Problems
from lab.runs.runner import Runner, Sampling

PROMPT = "The class statement"


@pytest.fixture(params=["llama.cpp", "mlx", "transformers"], scope="module")
def runner(request: pytest.FixtureRequest, tiny: Path, tiny_gguf: Path) -> Iterator[Runner]:
    if request.param == "transformers":
        pytest.importorskip("torch")
    with loading.load(tiny_gguf if request.param == "llama.cpp" else tiny, engine_=request.param) as found:
        assert found.engine == request.param
        yield found


def _text(runner: Runner, tokens: int = 16, **sampling: Any) -> str:
    return "".join(p.text for p in runner.generate(PROMPT, tokens=tokens, sampling=Sampling(**sampling)))


def test_greedy_text_is_the_same_each_time_and_comes_in_pieces(runner: Runner) -> None:
    pieces = list(runner.generate(PROMPT, tokens=16))
    assert sum(p.token >= 0 for p in pieces) == 16
    assert _text(runner) == _text(runner) == "".join(p.text for p in pieces) != ""


def test_a_seed_reproduces_sampled_text_and_another_gives_another(runner: Runner) -> None:
    assert _text(runner, temperature=1.0, seed=7) == _text(runner, temperature=1.0, seed=7)
    assert len({_text(runner, temperature=1.0, seed=s) for s in range(4)}) > 1


def test_a_score_is_the_log_probability_of_each_token_after_the_first(runner: Runner) -> None:
    found = runner.score(PROMPT)
    assert len(found.logprobs) == len(found.tokens) - 1
    assert all(v < 0 for v in found.logprobs)
    assert found.perplexity == pytest.approx(math.exp(-sum(found.logprobs) / len(found.logprobs)))
    assert runner.logits(found.tokens).shape == (len(found.tokens), 400)


def test_an_embedding_has_length_one_and_alike_texts_are_near(runner: Runner) -> None:
    a, b = runner.embed("The for statement"), runner.embed("The for statement is")
    c = runner.embed("0123456789 +-*/")
    assert math.isclose(sum(x * x for x in a), 1, rel_tol=1e-6)
    dot = [sum(x * y for x, y in zip(a, other, strict=True)) for other in (b, c)]
    assert dot[0] > dot[1]


def test_a_prompt_longer_than_the_context_is_a_problem(runner: Runner) -> None:
    with pytest.raises(Problems, match="the context holds 512"):
        list(runner.generate("word " * 2000, tokens=4))


def test_a_chat_prompt_follows_the_models_template(runner: Runner) -> None:
    assert runner.chat("Hello") == "<|user|>\nHello<|end|>\n<|assistant|>\n"


def test_memory_and_version_are_told(runner: Runner) -> None:
    assert runner.peak() > 10_000_000
    assert any(c.isdigit() for c in runner.version)
    assert runner.device in ("cpu", "metal", "mps", "cuda")


def test_both_engines_embed_the_same_text_alike(tiny: Path, tiny_gguf: Path) -> None:
    with loading.load(tiny) as mlx, loading.load(tiny_gguf) as llama:
        a, b = mlx.embed(PROMPT), llama.embed(PROMPT)
    assert sum(x * y for x, y in zip(a, b, strict=True)) > 0.999


@pytest.mark.parametrize(("package", "extra"), [("llama_cpp", "llama"), ("mlx", "mlx")])
def test_a_framework_that_is_not_installed_names_its_extra(
    package: str, extra: str, tiny: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Problems) as e:
        loading.load(tiny_gguf if package == "llama_cpp" else tiny)
    assert f"pip install 'llm-lab[{extra}]'" in str(e.value)


def test_a_file_that_is_no_model_is_a_problem_not_a_traceback(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Problems):
        loading.load(tmp_path / "x.gguf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Problems, match="no engine runs"):
        loading.load(tmp_path / "empty")


def test_an_engine_that_is_not_for_the_files_is_a_problem(tiny: Path, tiny_gguf: Path) -> None:
    with pytest.raises(Problems, match="transformers does not run what is in"):
        loading.load(tiny_gguf, engine_="transformers")
    with pytest.raises(Problems, match="did you mean `transformers`"):
        loading.load(tiny, engine_="transformer")


@pytest.mark.parametrize(
    ("mps", "cuda", "asked", "found"),
    [(True, True, "", ("mps", "")), (False, True, "", ("cuda", "")), (False, False, "", ("cpu", "mps")),
     (True, False, "cpu", ("cpu", ""))],
)  # fmt: skip
def test_pytorchs_device_is_the_first_there_is(mps: bool, cuda: bool, asked: str, found: tuple[str, str]) -> None:
    """mps, then cuda, then the CPU, which says what it stands in for; here against a PyTorch that says what it has."""
    torch = SimpleNamespace(
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(is_available=lambda: cuda),
    )
    assert hf.choose(torch, asked) == found
    with pytest.raises(Problems, match="no device `tpu`"):
        hf.choose(torch, "tpu")


def test_transformers_agrees_with_mlx(tiny: Path) -> None:
    """S0-4.2-4: the same weights in F32 give logits no more than 1e-3 apart, and the same greedy text."""
    pytest.importorskip("torch")
    import numpy as np

    with loading.load(tiny, engine_="transformers", exact=True) as a, loading.load(tiny, exact=True) as b:
        assert (a.device, getattr(a, "fallback_from", "")) in [("cpu", "mps"), ("cuda", ""), ("mps", "")]
        tokens = a.tokenize(PROMPT)
        assert tokens == b.tokenize(PROMPT)
        assert float(np.abs(a.logits(tokens) - b.logits(tokens)).max()) < 1e-3
        assert _text(a) == _text(b)


def test_transformers_takes_no_weights_that_are_not_there(tiny: Path, tmp_path: Path) -> None:
    """A folder that lacks a tensor is a problem; Transformers alone would make it up."""
    pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights.pop(next(k for k in weights if k.endswith("q_proj.weight")))
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Problems, match="Transformers cannot load") as e:
        loading.load(tmp_path / "m", engine_="transformers")
    assert "q_proj" in e.value.problems[0].why
