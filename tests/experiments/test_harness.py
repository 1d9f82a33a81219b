"""EleutherAI's lm-evaluation-harness judges a model of the lab by task files of one's own, in an env of its own.

Proves S4-2.2.8-8 as far as it can be here: the suites' own data (MMLU, C-Eval, HumanEval) is on no server in reach;
task files of the same format, made here, take its place.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import uv

from tests.engines import make
from tests.experiments.conftest import Bench
from tests.experiments.test_evaluation import newest

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
def test_the_harness_runs_task_files_of_ones_own_in_its_own_env(bench: Bench, tmp_path: Path) -> None:
    """`template: harness` is locked and installed, the recipe runs in it; with all answers turned, right is wrong."""
    ask = [uv.find_uv_bin(), "pip", "install", "--dry-run", "--no-deps", "--python", sys.executable, "lm-eval>=0.4.9"]
    found = subprocess.run(ask, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"no package index with lm-eval is in reach: {found.stderr.strip().splitlines()[-1]}")
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("there is no room for its env here")
    make.model(tmp_path / "tiny")
    bench.write("conf/profile/all.yaml", '# @package _global_\nresources: {"*": "*"}\n')
    bench.write("conf/env/harness.yaml", "template: harness\n")
    bench.write("conf/model/tiny.yaml", f"path: {tmp_path / 'tiny'}\n")
    bench.write("conf/dataset/tasks.yaml", "path: tasks\n")
    for name, turned in (("mine", 0), ("turned", 1)):
        bench.write(f"tasks/{name}.yaml", TASK.format(name=name))
        items = [
            {"question": f"The {n}. statement", "choices": [" is", " zzz"], "answer": int(n % 3 > 0) ^ turned}
            for n in range(6)
        ]
        bench.write(f"tasks/{name}.jsonl", "".join(json.dumps(i) + "\n" for i in items))
    words = ("task=mine", "env=harness", "model=tiny", "dataset=tasks")
    assert bench("new", "experiment", "h", "--from", "harness", *words)[0] == 0
    file = bench.root / "conf/experiment/h.yaml"
    file.write_text(file.read_text().replace("[mine]", "[mine, turned]"))
    try:
        assert bench("lock", "env.harness")[0] == 0
        code, told = bench("apply", "--yes")
        assert code == 0, told + bench("logs", "h")[1]
        run = newest(bench, "h")
        assert run.read("inputs.json")["interpreter"]["path"].startswith(str(bench.root / "state/envs/harness"))
        metrics = run.result["metrics"]
        assert 0 < metrics["mine.acc"] < 1
        assert metrics["mine.acc"] + metrics["turned.acc"] == pytest.approx(1)
        report = json.loads((run / "outputs/report.json").read_text())
        assert report["samples"] == {n: {"original": 6, "effective": 6} for n in ("mine", "turned")}
        code, told = bench("plan", "--detailed-exitcode")
        assert code == 0, told
    finally:
        shutil.rmtree(bench.root / "state/envs", ignore_errors=True)
