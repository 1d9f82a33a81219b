"""Runner: the port through which models are run, whatever engine runs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from lab.core.problem import Problem, Problems


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest: then nothing else matters."""

    temperature: float = 0.0
    seed: int = 0
    """The same seed, engine, version and weights give the same text."""
    top_p: float = 1.0
    top_k: int = 0
    """0 for all."""


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Piece:
    """One generated token, and the text that became complete with it (maybe none: half a character)."""

    token: int
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a model finds a text: the natural log-probability of each token after the first."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability."""
        import math

        return math.exp(-sum(self.logprobs) / len(self.logprobs)) if self.logprobs else float("nan")


class ModelLoadError(Problems):
    """An engine could not load a model's files: they are damaged, incomplete, or not what the engine knows."""

    @classmethod
    def of(cls, engine: str, name: str, why: str, do: str) -> ModelLoadError:
        """`engine` cannot load `name`."""
        return cls(Problem(f"{engine} cannot load {name}", why=why or "it gave no reason", do=do))


class Runner(Protocol):
    """A loaded model. Made by an adapter's `load`; a context manager that frees it."""

    engine: str
    """`llama.cpp`, `mlx` or `transformers`."""
    version: str
    """Of the engine, as its package names it."""
    context: int
    """Tokens it can hold at once."""
    device: str
    """`cpu`, `metal`, `mps` or `cuda`."""

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The model's tokens of a text; with `special`, what a prompt begins with is added."""
        ...

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        ...

    def chat(self, text: str) -> str:
        """The prompt the model's chat template makes of one message; a Problem where it has none."""
        ...

    def generate(self, prompt: str, *, tokens: int = 128, sampling: Sampling = GREEDY) -> Iterator[Piece]:
        """At most `tokens` tokens after the prompt, as they come; ends early where the model says so."""
        ...

    def logits(self, tokens: Sequence[int]) -> Any:
        """What the model expects after each token: float32 array, tokens × vocabulary."""
        ...

    def score(self, text: str) -> Score:
        """The log-probability of each token of a text."""
        ...

    def embed(self, text: str) -> list[float]:
        """The mean of the last layer's states, of length 1."""
        ...

    def peak(self) -> int:
        """Most bytes of memory held so far, by this process and its accelerator."""
        ...

    def close(self) -> None:
        """Frees the model."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
