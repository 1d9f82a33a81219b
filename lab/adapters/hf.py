"""Transformers as a Runner, through PyTorch in this process: on mps, cuda or the CPU, the first there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Self

from lab.adapters import child, runners
from lab.core.problem import problem
from lab.runs.runner import GREEDY, ModelLoadError, Piece, Sampling, Score

ORDER = ("mps", "cuda", "cpu")


class Transformers(runners.Pretrained):
    """A folder of original safetensors, as its authors' own classes compute it. `exact` computes in float32."""

    engine = "transformers"

    def __init__(self, folder: Path, *, context: int | None = None, exact: bool = False, device: str = "") -> None:
        import torch
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch, self._transformers = torch, transformers
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        self.device, self.fallback_from = choose(torch, device)
        try:
            # Nothing is fetched, and no code of a repository is run.
            local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)  # nosec B615 # a folder of this machine
            kind = torch.float32 if exact or self.device == "cpu" else "auto"
            model, info = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a folder of this machine
                str(folder), dtype=kind, use_safetensors=True, output_loading_info=True, **local
            )
            if lacking := info["missing_keys"] or info["mismatched_keys"]:
                # They would be random numbers, and the text with them.
                raise ValueError(f"its files lack {min(map(str, lacking))}")
            self._model: Any = model.to(self.device).eval()
        except ImportError:
            raise
        except Exception as e:
            why = str(e).partition("\n")[0][:200] or type(e).__name__
            do = "run `lab verify`; weights that MLX quantized are run by MLX only"
            raise ModelLoadError.of("Transformers", folder.name, why, do) from e
        # Renamed during Transformers 5.
        self._cache = "cache" if "cache" in signature(self._model.forward).parameters else "past_key_values"
        trained = getattr(self._model.config, "max_position_embeddings", None)
        self.context = min(context or runners.CONTEXT, trained if isinstance(trained, int) else 1 << 30)

    def generate(self, prompt: str, *, tokens: int = 128, sampling: Sampling = GREEDY) -> Iterator[Piece]:
        ids = self.tokenize(prompt, special=True) or [self._tokenizer.bos_token_id or 0]
        if len(ids) >= self.context:
            raise runners.too_long(len(ids), self.context)
        ends = self._ends()
        dice = self._torch.Generator().manual_seed(sampling.seed)
        fed, cache = ids, self._transformers.DynamicCache(config=self._model.config)
        made: list[int] = []
        told = 0
        for _ in range(min(tokens, self.context - len(ids))):
            with self._torch.inference_mode():
                out = self._model(self._tensor(fed), use_cache=True, **{self._cache: cache})
            token = self._pick(out.logits[0, -1].float().cpu(), sampling, dice)
            if token in ends:
                break
            made.append(token)
            fed = [token]
            whole = self.detokenize(made)
            # A character whose bytes are not all there yet is held back.
            text = "" if whole.endswith("\ufffd") else whole[told:]
            told += len(text)
            yield Piece(token, text)
        if rest := self.detokenize(made)[told:]:
            yield Piece(-1, rest)

    def _pick(self, logits: Any, sampling: Sampling, dice: Any) -> int:
        if sampling.temperature <= 0:
            return int(logits.argmax())
        logits = logits / sampling.temperature
        if sampling.top_k:
            logits[logits < logits.topk(min(sampling.top_k, len(logits))).values[-1]] = float("-inf")
        chances = logits.softmax(-1)
        if sampling.top_p < 1:
            ranked, at = chances.sort(descending=True)
            ranked[ranked.cumsum(-1) - ranked > sampling.top_p] = 0
            chances = self._torch.zeros_like(chances).scatter_(0, at, ranked)
        return int(self._torch.multinomial(chances, 1, generator=dice))

    def _ends(self) -> set[int]:
        said = self._model.generation_config.eos_token_id
        found = said if isinstance(said, list) else [said]
        return {int(t) for t in (*found, self._tokenizer.eos_token_id) if t is not None}

    def _tensor(self, tokens: Sequence[int]) -> Any:
        return self._torch.tensor([list(tokens)], device=self.device)

    def logits(self, tokens: Sequence[int]) -> Any:
        if len(tokens) > self.context:
            raise runners.too_long(len(tokens), self.context)
        with self._torch.inference_mode():
            return self._model(self._tensor(tokens)).logits[0].float().cpu().numpy()

    def score(self, text: str) -> Score:
        tokens = self.tokenize(text)
        return runners.score(tokens, self.logits(tokens))

    def embed(self, text: str) -> list[float]:
        tokens = self._tensor(self.tokenize(text, special=True))
        with self._torch.inference_mode():
            states = self._model(tokens, output_hidden_states=True).hidden_states[-1][0]
        return runners.unit(states.float().mean(0).cpu().numpy())

    def peak(self) -> int:
        if self.device == "cuda":
            return child.peak() + int(self._torch.cuda.max_memory_allocated())
        return child.peak() + (int(self._torch.mps.driver_allocated_memory()) if self.device == "mps" else 0)

    def close(self) -> None:
        self._model = self._tokenizer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def choose(torch: Any, asked: str = "") -> tuple[str, str]:
    """The device, and the better one it stands in for: `("cpu", "mps")` where PyTorch can neither mps nor cuda.

    A device that is asked for and not there is a Problem.
    """
    there = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available(), "cpu": True}
    if asked:
        if not there.get(asked):
            has = ", ".join(d for d in ORDER if there[d])
            raise problem(f"PyTorch has no device `{asked}` here", why=f"it has {has}", do="leave `device` out")
        return asked, ""
    found = next(d for d in ORDER if there[d])
    return found, "mps" if found == "cpu" else ""
