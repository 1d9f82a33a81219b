"""llama.cpp as a Runner, through llama-cpp-python in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from lab.adapters import child, gguf_header, runners
from lab.core.problem import problem
from lab.runs.runner import GREEDY, ModelLoadError, Piece, Sampling, Score


class LlamaCpp:
    """A GGUF, loaded by llama.cpp. `exact` is for scoring: no flash attention, the cache in F32, all logits kept."""

    engine = "llama.cpp"

    def __init__(self, file: Path, *, context: int | None = None, exact: bool = False, threads: int = 0) -> None:
        import logging
        import sys

        import llama_cpp

        # Its warnings go past sys.stderr; what matters is raised.
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
        self._api = llama_cpp
        self.version = f"llama-cpp-python {llama_cpp.__version__}"
        self._file = file
        self.context = min(context or runners.CONTEXT, _trained(file) or context or runners.CONTEXT)
        gpu = bool(llama_cpp.llama_supports_gpu_offload())
        self.device = ("metal" if sys.platform == "darwin" else "cuda") if gpu else "cpu"
        self._options: dict[str, Any] = {
            "n_ctx": self.context,
            "n_gpu_layers": -1 if gpu else 0,
            "n_threads": threads or None,
            "verbose": False,
            "flash_attn": gpu and not exact,
            "logits_all": exact,
            "n_batch": min(self.context, 512),
        }
        if exact:
            # The cache would be rounded to f16, which moves logits by some thousandths.
            self._options |= {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
        self._exact = exact
        self._model: Any = self._open(**self._options)
        self._embedder: Any = None

    def _open(self, **options: Any) -> Any:
        try:
            return self._api.Llama(str(self._file), **options)
        except (ValueError, RuntimeError, AssertionError) as e:
            do = "run `lab verify`; a newer model may need a newer llama-cpp-python"
            why = _fault(self._file) or str(e).partition("\n")[0]
            raise ModelLoadError.of(self.engine, self._file.name, why, do) from e

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._model.tokenize(text.encode(), add_bos=special, special=special))

    def detokenize(self, tokens: Sequence[int]) -> str:
        return str(self._model.detokenize(list(tokens), special=True).decode(errors="replace"))

    def chat(self, text: str) -> str:
        template = self._model.metadata.get("tokenizer.chat_template")
        if not template:
            raise problem("the model has no chat template", do="leave --chat out: the prompt is then taken as it is")
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        words = [self._model.detokenize([t], special=True).decode(errors="replace") if t >= 0 else ""
                 for t in (self._model.token_eos(), self._model.token_bos())]  # fmt: skip
        made = Jinja2ChatFormatter(template=template, eos_token=words[0], bos_token=words[1])
        return str(made(messages=[{"role": "user", "content": text}]).prompt)

    def generate(self, prompt: str, *, tokens: int = 128, sampling: Sampling = GREEDY) -> Iterator[Piece]:
        ids = self.tokenize(prompt, special=True) or [self._model.token_bos()]
        if len(ids) >= self.context:
            raise runners.too_long(len(ids), self.context)
        self._model.reset()
        self._model.set_seed(sampling.seed)
        vocabulary = self._api.llama_model_get_vocab(self._model.model)
        text = runners.Text()
        count = 0
        chosen = {"temp": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": 0.0}
        stream = self._model.generate(ids, repeat_penalty=1.0, **chosen)
        try:
            for token in stream:
                if self._api.llama_vocab_is_eog(vocabulary, token):
                    break
                count += 1
                yield Piece(int(token), text.add(self._model.detokenize([token], prev_tokens=ids)))
                if count >= tokens or len(ids) + count >= self.context:
                    break
        finally:
            stream.close()
        if rest := text.end():
            yield Piece(-1, rest)

    def logits(self, tokens: Sequence[int]) -> Any:
        if len(tokens) > self.context:
            raise runners.too_long(len(tokens), self.context)
        if not self._exact:
            with LlamaCpp(self._file, context=max(len(tokens), 16), exact=True) as other:
                return other.logits(tokens)
        self._model.reset()
        self._model.eval(list(tokens))
        return self._model.scores[: len(tokens)].copy()

    def score(self, text: str) -> Score:
        tokens = self.tokenize(text)
        return runners.score(tokens, self.logits(tokens))

    def embed(self, text: str) -> list[float]:
        if self._embedder is None:
            mean = self._api.LLAMA_POOLING_TYPE_MEAN
            options = {**self._options, "logits_all": False, "n_batch": self.context, "n_ubatch": self.context}
            self._embedder = self._open(**options, embedding=True, pooling_type=mean)
        return runners.unit(self._embedder.embed(text))

    def peak(self) -> int:
        return child.peak()

    def close(self) -> None:
        for model in (self._model, self._embedder):
            if model is not None:
                model.close()
        self._embedder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _fault(file: Path) -> str:
    """What is wrong with its header; llama.cpp only says that it failed."""
    try:
        gguf_header.read(file)
    except (gguf_header.Broken, OSError) as e:
        return str(e)
    return ""


def _trained(file: Path) -> int | None:
    """The context a model was trained for."""
    try:
        values = gguf_header.read(file).values
    except (gguf_header.Broken, OSError):
        return None  # llama.cpp itself will say what is wrong with it.
    found = values.get(f"{values.get('general.architecture')}.context_length")
    return int(found) if isinstance(found, int) else None
