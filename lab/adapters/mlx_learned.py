"""Learned quantization with mlx-lm: GPTQ, AWQ and DWQ, on a text of the lab; nothing is fetched. Runs in children."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

from lab.adapters.child import Progress
from lab.adapters.texts import CALIBRATION, text_of
from lab.core.facts import Facts
from lab.core.problem import problem

REST = {"bits": 6, "group_size": 64}
"""GPTQ learns linear layers only; what is left (the embedding) is rounded to this, as mlx-lm does."""


def quantize(
    model: Any, tokenizer: Any, config: dict[str, Any], args: Facts, progress: Progress
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The quantized model, its config, and what it was learned on: `{sha256, pieces, tokens}`."""
    import mlx.core as mx

    path = text_of(Path(args["source"]), args["text"], CALIBRATION, f"{args['method']} quantization")
    text = path.read_text(encoding="utf-8", errors="replace")
    pieces = _pieces(tokenizer, text, args["samples"], args["sequence"], args["seed"])
    learn = {"gptq": _gptq, "awq": _awq, "dwq": _dwq}[args["method"]]
    try:
        model, config = learn(model, config, pieces, args)
    except NotImplementedError as e:
        raise problem(
            f"{args['method']} does not know {config.get('model_type')} models", why=str(e), do="use `method: round`"
        ) from e
    except (ValueError, AttributeError, TypeError, KeyError) as e:
        raise problem(
            f"mlx-lm could not learn {args['method']} on this model",
            why=str(e).splitlines()[0][:200] if str(e) else type(e).__name__,
            do="use `method: round`, or another method",
        ) from e
    mx.eval(model.parameters())
    progress(1, 1, "models")
    found = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "pieces": len(pieces), "tokens": int(pieces.size)}
    return model, config, found


def _pieces(tokenizer: Any, text: str, samples: int, length: int, seed: int) -> Any:
    """`samples` pieces of the text, chosen by the seed: array pieces × length."""
    import mlx.core as mx
    import numpy as np

    ids = np.array(tokenizer.encode(text), dtype=np.int32)
    count = len(ids) // length
    if not count:
        raise problem(
            f"the text has {len(ids)} tokens, fewer than one piece of {length}",
            do="name a longer text, or a smaller `sequence`",
        )
    rows = ids[: count * length].reshape(count, length)
    chosen = np.random.default_rng(seed).permutation(count)[:samples]
    return mx.array(rows[np.sort(chosen)])


def _gptq(model: Any, config: dict[str, Any], pieces: Any, args: Facts) -> tuple[Any, dict[str, Any]]:
    from mlx_lm.quant.gptq import gptq_quantize

    model, found = gptq_quantize(model, pieces, args["bits"], args["group_size"], REST["bits"], REST["group_size"])
    return model, {**config, "quantization": found}


def _awq(model: Any, config: dict[str, Any], pieces: Any, args: Facts) -> tuple[Any, dict[str, Any]]:
    from mlx_lm.quant.awq import AWQ_MODEL_CONFIGS, awq_quantize, update_config

    known = AWQ_MODEL_CONFIGS.get(config["model_type"])
    if known is None:
        raise NotImplementedError(f"it knows {', '.join(sorted(AWQ_MODEL_CONFIGS))}")
    bits, group = args["bits"], args["group_size"]
    awq_quantize(model, pieces, known, group, bits, embed_group_size=group, embed_bits=max(bits, 4))
    return model, update_config(model, config)


def _dwq(model: Any, config: dict[str, Any], pieces: Any, args: Facts) -> tuple[Any, dict[str, Any]]:
    import mlx.core as mx
    import mlx.optimizers as optimizers
    from mlx_lm.quant.dwq import dwq_quantize
    from mlx_lm.utils import quantize_model

    student = copy.deepcopy(model)
    student, config = quantize_model(student, config, args["group_size"], args["bits"])
    data = [(row, 0) for row in pieces.tolist()]
    held = max(1, len(data) // 8)
    dwq_quantize(
        student,
        lambda batch, index, split: model(batch),
        optimizers.Adam(learning_rate=1e-5, bias_correction=True),
        data[held:] or data,
        data[:held],
        batch_size=1,
        max_seq_length=args["sequence"],
        seed=args["seed"],
        dtype=mx.float32,
    )
    student.eval()
    # It learns scales in float32; they are kept in the precision of the original.
    student.set_dtype(_precision(config))
    return student, config


def _precision(config: dict[str, Any]) -> Any:
    import mlx.core as mx

    found = getattr(mx, str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"), mx.bfloat16)
    return found if found in (mx.float16, mx.bfloat16, mx.float32) else mx.bfloat16
