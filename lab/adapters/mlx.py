"""MLX as a Runner, through mlx-lm in this process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Self

from lab.adapters import child, runners
from lab.core.problem import problem
from lab.runs.runner import GREEDY, ModelLoadError, Piece, Sampling, Score


class MLX(runners.Pretrained):
    """A folder of safetensors, original or quantized by MLX. `exact` computes in float32: for scoring.

    `bits` quantizes an original while it is loaded, rounded as `format: mlx` with these bits would be.
    """

    engine = "mlx"

    def __init__(self, folder: Path, *, context: int | None = None, exact: bool = False, bits: int = 0) -> None:
        import mlx.core as mx
        import mlx_lm
        import transformers
        from mlx.utils import tree_flatten
        from mlx_lm.utils import load, quantize_model

        transformers.logging.set_verbosity_error()

        self._mx = mx
        self.version = f"mlx-lm {mlx_lm.__version__}, mlx {installed('mlx')}"
        self.device = "metal" if mx.metal.is_available() else "cpu"
        config = _config(folder)
        trained = config.get("max_position_embeddings")
        self.context = min(context or runners.CONTEXT, trained if isinstance(trained, int) else 1 << 30)
        try:
            self._model, self._tokenizer = load(str(folder), lazy=bool(bits))
            if bits:
                with contextlib.redirect_stdout(None):  # it prints
                    self._model, _ = quantize_model(self._model, config, 64, bits)
                # One tensor after the other: the original is never held whole.
                for _, tensor in tree_flatten(self._model.parameters()):
                    mx.eval(tensor)
        except ImportError:
            raise
        except Exception as e:
            do = "run `lab verify`; a newer model may need a newer mlx-lm"
            raise ModelLoadError.of("MLX", folder.name, str(e).partition("\n")[0][:200], do) from e
        if exact:
            self._model.set_dtype(mx.float32)

    def generate(self, prompt: str, *, tokens: int = 128, sampling: Sampling = GREEDY) -> Iterator[Piece]:
        from mlx_lm.generate import generate_step
        from mlx_lm.sample_utils import make_sampler

        ids = self.tokenize(prompt, special=True) or [self._tokenizer.bos_token_id or 0]
        if len(ids) >= self.context:
            raise runners.too_long(len(ids), self.context)
        self._mx.random.seed(sampling.seed)
        sampler = make_sampler(temp=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k)
        text = self._tokenizer.detokenizer
        text.reset()
        most = min(tokens, self.context - len(ids))
        for token, _ in generate_step(self._mx.array(ids), self._model, max_tokens=most, sampler=sampler):
            if token in self._tokenizer.eos_token_ids:
                break
            text.add_token(token)
            yield Piece(int(token), text.last_segment)
        text.finalize()
        if rest := text.last_segment:
            yield Piece(-1, rest)

    def logits(self, tokens: Sequence[int]) -> Any:
        import numpy as np
        from mlx_lm.models.cache import make_prompt_cache

        if len(tokens) > self.context:
            raise runners.too_long(len(tokens), self.context)
        cache = make_prompt_cache(self._model)
        parts = []
        for i in range(0, len(tokens), 512):
            found = self._model(self._mx.array([list(tokens[i : i + 512])]), cache=cache)[0]
            parts.append(np.array(found.astype(self._mx.float32)))
        return np.concatenate(parts)

    def score(self, text: str) -> Score:
        tokens = self.tokenize(text)
        return runners.score(tokens, self.logits(tokens))

    def embed(self, text: str) -> list[float]:
        inner = getattr(self._model, "model", None)
        if inner is None:
            raise problem("this model gives no embeddings with MLX", do="use its GGUF")
        states = inner(self._mx.array([self.tokenize(text, special=True)]))[0]
        import numpy as np

        return runners.unit(np.array(states.astype(self._mx.float32)).mean(0))

    def peak(self) -> int:
        found = child.peak()
        return found + int(self._mx.get_peak_memory()) if self.device == "metal" else found

    def close(self) -> None:
        self._model = self._tokenizer = None
        self._mx.clear_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as e:
        why = f"its config.json cannot be read: {e}"
        raise ModelLoadError.of("MLX", folder.name, why, "run `lab verify`") from e
    return found if isinstance(found, dict) else {}
