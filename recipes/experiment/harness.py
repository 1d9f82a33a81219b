"""EleutherAI's lm-evaluation-harness on a model of the lab, with task files of your own: runs in the env `harness`.

The dataset holds tasks as the harness reads them: `TASK.yaml` with `dataset_path: json`, and JSON lines beside it. A
path in a task's `data_files` is taken from there. Nothing is downloaded (`HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def main(
    models: dict[str, str],
    datasets: dict[str, str],
    outputs: dict[str, Path],
    tasks: list[str],
    shots: int = 0,
    limit: int = 0,
    batch: int = 4,
    tokens: int = 256,
    seed: int = 42,
) -> dict[str, float]:
    """Every figure the harness gives, as `TASK.metric`; its whole answer in the output `report`."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("HF_DATASETS_CACHE", str(outputs["report"].parent / ".datasets"))
    import lm_eval
    from lm_eval.tasks import TaskManager
    from mlx_lm.evaluate import MLXLM

    folder = Path(datasets["tasks"])
    before = Path.cwd()
    os.chdir(folder)
    try:
        found: Any = lm_eval.simple_evaluate(
            model=MLXLM(models["model"], max_tokens=tokens),
            tasks=list(tasks),
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            num_fewshot=shots,
            limit=limit or None,
            batch_size=batch,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            bootstrap_iters=0,
        )
    finally:
        os.chdir(before)
        shutil.rmtree(outputs["report"].parent / ".datasets", ignore_errors=True)
    results: dict[str, dict[str, Any]] = found["results"]
    report = {"results": results, "versions": found.get("versions"), "samples": found.get("n-samples")}
    outputs["report"].write_text(json.dumps(report, indent=1, default=str))
    return {
        f"{task}.{name.partition(',')[0]}": float(value)
        for task, told in results.items()
        for name, value in told.items()
        if "," in name and "stderr" not in name and isinstance(value, (int, float))
    }
