"""Which engine runs a folder of the store, and what every runner shares."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.core.problem import problem
from lab.runs.runner import Score

CONTEXT = 4096
"""Tokens of context where none are asked for and the model can hold more."""


def engine(folder: Path) -> str:
    """`llama.cpp` for a folder with GGUF files, `mlx` for one with safetensors; a Problem for others. Reads."""
    if folder.is_file() and folder.suffix == ".gguf":
        return "llama.cpp"
    if not folder.is_dir():
        raise problem(f"{folder} is not there", do="run `lab apply`")
    if any(folder.glob("*.gguf")):
        return "llama.cpp"
    if any(folder.glob("*.safetensors")):
        return "mlx"
    raise problem(f"no engine runs what is in {folder}", why="it holds neither GGUF nor safetensors files")


def gguf(folder: Path) -> Path:
    """The GGUF of a folder: the only one, or the first of a split one."""
    if folder.is_file():
        return folder
    found = sorted(folder.glob("*.gguf"))
    firsts = [f for f in found if "-00001-of-" in f.name]
    if len(firsts) == 1 or len(found) == 1:
        return (firsts or found)[0]
    if not found:
        raise problem(f"there is no GGUF in {folder}", do="run `lab apply`")
    raise problem(
        f"{folder} holds {len(found)} GGUF files",
        why=", ".join(f.name for f in found[:6]),
        do="declare each as a model of its own, with `include:`",
    )


def score(tokens: Sequence[int], logits: Any) -> Score:
    """The log-probabilities of the tokens after the first, from the logits before each."""
    import numpy as np

    x = np.asarray(logits[:-1], dtype=np.float64)
    x = x - x.max(-1, keepdims=True)
    logp = x - np.log(np.exp(x).sum(-1, keepdims=True))
    chosen = logp[np.arange(len(tokens) - 1), np.asarray(tokens[1:], dtype=np.int64)]
    return Score(tuple(int(t) for t in tokens), tuple(float(v) for v in chosen))


def unit(vector: Any) -> list[float]:
    """The vector with length 1."""
    import numpy as np

    v = np.asarray(vector, dtype=np.float64).reshape(-1)
    return [float(x) for x in v / (np.linalg.norm(v) or 1.0)]


class Pretrained:
    """What runners share whose tokenizer is one of Transformers'."""

    _tokenizer: Any

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def detokenize(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens)))

    def chat(self, text: str) -> str:
        if not self._tokenizer.chat_template:
            raise problem("the model has no chat template", do="leave --chat out: the prompt is then taken as it is")
        message = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


class Text:
    """Bytes of tokens become text as soon as characters are whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, data: bytes) -> str:
        """The text that became complete."""
        return self._decoder.decode(data)

    def end(self) -> str:
        """What is left, with � for half a character."""
        return self._decoder.decode(b"", True)


def too_long(tokens: int, context: int) -> Exception:
    """The problem of a prompt that does not fit."""
    return problem(
        f"the prompt has {tokens} tokens, and the context holds {context}",
        do="shorten it, or ask for more context with --context",
    )
