"""Train: a model recipe runs in a process of its own and leaves a model's files in the stage's scratch folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.adapters import child
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_models import Train


def train(step: Train, stage: Stage) -> Facts:
    """The finished model, and nothing else, lies in `stage.scratch / step.out`; returns what the recipe measured."""
    script = recipe(stage.root, step.recipe)
    out = stage.scratch / step.out
    if (out / "config.json").exists():
        # It was moved there whole: an earlier attempt had finished.
        return {}
    making, params, log = (stage.scratch / n for n in ("train-out", "params.json", "train.log"))
    shutil.rmtree(making, ignore_errors=True)
    stage.scratch.mkdir(parents=True, exist_ok=True)
    params.write_text(json.dumps(dict(step.params)))
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **child.preload()}
    facts: dict[str, Any] = {}
    with open(log, "wb") as sink:
        command = [sys.executable, str(script), "--out", str(making), "--params", str(params)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=env, start_new_session=True
        )
    try:
        assert process.stdout
        for message in child.messages(process.stdout, stage):
            if "progress" in message:
                stage.progress(*message["progress"])
            facts |= message.get("facts", {})
        code = process.wait()
    finally:
        child.stop(process)
    if code or not (making / "config.json").exists():
        raise problem(
            f"the recipe {step.recipe} made no model",
            why=child.tail(log),
            do=_advice(log) or f"see {log}",
        )
    shutil.rmtree(out, ignore_errors=True)
    os.replace(making, out)
    return {"recipe": facts}


def recipe(root: Path, name: str) -> Path:
    """`recipes/model/NAME/train.py` of the lab, else the one shipped with Lab."""
    package = Path(__file__).parents[1]
    for folder in (root, package / "_shipped", package.parent):
        script = folder / "recipes" / "model" / name / "train.py"
        if script.is_file():
            return script
    raise problem(
        f"there is no model recipe {name}",
        why=f"neither the lab nor Lab itself has recipes/model/{name}/train.py",
        do="name another, or write it (docs/quantization.md)",
    )


def _advice(log: Path) -> str:
    for package, extra in child.EXTRAS.items():
        if f"No module named '{package}" in child.tail(log):
            return f"install what it needs: pip install 'llm-lab[{extra}]'"
    return ""
