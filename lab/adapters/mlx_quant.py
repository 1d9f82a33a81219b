"""Quantize for MLX, in a child: to nearest, by mlx-lm's mixed recipes, or learned (GPTQ, AWQ, DWQ) on a local text."""

from __future__ import annotations

import shutil
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from lab.adapters import child, store
from lab.adapters.child import Progress
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_engines import QuantizeMLX


def quantize_mlx(step: QuantizeMLX, stage: Stage) -> Facts:
    """The quantized folder's files are blobs, and its view says what it was made from."""
    root = Path(step.store or stage.store)
    out = stage.scratch / "mlx"
    shutil.rmtree(out, ignore_errors=True)
    names = ("source", "bits", "group_size", "scaling", "recipe", "method", "text", "samples", "sequence", "seed")
    args = {**{n: getattr(step, n) for n in names}, "out": str(out)}
    target = "lab.adapters.mlx_quant:work"
    made = child.run(target, args, log=stage.scratch / "quantize.log", watch=stage, what="quantization with MLX")
    files = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        files[path.relative_to(out).as_posix()] = store.add(root, path)
    facts = {**step.facts, "bytes": made["bytes"], "bits_per_weight": made["bits_per_weight"]}
    if made.get("kept"):
        facts["fallback"] = made["kept"]
    if made.get("calibration"):
        facts["calibration"] = made["calibration"]
    provenance = {**step.provenance, "digest": step.digest, "facts": facts, "engine": made["engine"]}
    store.view(root, step.out, files, provenance)
    for sha256 in files.values():
        stage.remember(store.path(root, sha256), sha256)
    shutil.rmtree(out, ignore_errors=True)
    return {"files": files, "memory": made["memory"], "seconds": made["seconds"], **facts}


def work(args: Facts, progress: Progress) -> Facts:
    """Quantizes one model folder with the installed mlx-lm. Runs in a child."""
    import time

    import mlx.core as mx
    import mlx_lm
    from mlx.utils import tree_flatten
    from mlx_lm.utils import compute_bits_per_weight, load

    began = time.perf_counter()
    source, out = Path(args["source"]), Path(args["out"])
    temporary = out.with_name(f".{out.name}.lab-tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    mx.random.seed(args["seed"])
    model, tokenizer, config = load(str(source), return_config=True, lazy=args["method"] == "round")
    if "quantization" in config or "quantization_config" in config:
        raise problem(
            "MLX quantizes unquantized weights only",
            why=f"{source} holds weights that are quantized already",
            do="declare the original as the source (`of:`)",
        )
    calibration: dict[str, Any] = {}
    if args["method"] == "round":
        model, config = _round(model, config, args)
    else:
        from lab.adapters import mlx_learned

        model, config, calibration = mlx_learned.quantize(model, tokenizer, config, args, progress)
    _save(temporary, source, model, config)
    kept = {
        name: "too narrow"
        for name, module in tree_flatten(model.leaf_modules(), is_leaf=lambda m: hasattr(m, "to_quantized"))
        if hasattr(module, "to_quantized") and module.weight.shape[-1] % args["group_size"]
    }
    bits = float(compute_bits_per_weight(model))
    temporary.rename(out)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    progress(size, size)
    return {
        "bytes": size,
        "bits_per_weight": round(bits, 4),
        "kept": kept,
        "calibration": calibration,
        "engine": f"mlx-lm {mlx_lm.__version__}, mlx {installed('mlx')}",
        "seconds": round(time.perf_counter() - began, 2),
    }


def _round(model: Any, config: dict[str, Any], args: Facts) -> tuple[Any, dict[str, Any]]:
    from mlx_lm.convert import mixed_quant_predicate_builder
    from mlx_lm.utils import quantize_model

    predicate = None
    if args["recipe"]:
        try:
            predicate = mixed_quant_predicate_builder(args["recipe"], model, args["group_size"])
        except ValueError as e:
            raise problem(
                f"the recipe {args['recipe']} does not fit this model", why=str(e), do="give `bits:` without `recipe:`"
            ) from e
    try:
        model, config = quantize_model(
            model, config, args["group_size"], args["bits"], mode=args["scaling"], quant_predicate=predicate
        )
    except ValueError as e:
        raise problem(
            f"MLX refused {args['bits']} bits in groups of {args['group_size']}",
            why=str(e).splitlines()[0],
            do="choose other `bits` or another `group_size`",
        ) from e
    return model, config


def _save(folder: Path, source: Path, model: Any, config: dict[str, Any]) -> None:
    """Weights and config as mlx-lm writes them; tokenizer and templates byte for byte as the original has them."""
    from mlx_lm.utils import save_config, save_model

    folder.mkdir(parents=True)
    save_model(folder, model, donate_model=False)
    save_config(config, config_path=folder / "config.json")
    for path in sorted(source.iterdir()):
        name = path.name
        if path.is_file() and not (folder / name).exists() and _carried(name):
            shutil.copyfile(path, folder / name)


def _carried(name: str) -> bool:
    """Whether a file of the original belongs beside quantized weights."""
    if name in (".lab.json", "held_out.txt", "calibration.txt", "model.safetensors.index.json") or name.startswith("."):
        return False
    return name.endswith((".json", ".jinja", ".model", ".tiktoken", ".txt", ".py")) or name in ("LICENSE", "NOTICE")
