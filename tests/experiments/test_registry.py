"""What is known of a model is one page: what it is, what it was made from, how good and how fast it is.

Proves S2-3.5-3 and S0-US-002-3.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines import make
from tests.experiments.conftest import Bench
from tests.experiments.test_evaluation import TASKS, newest

ALL = '# @package _global_\nresources: {"*": "*"}\n'


@pytest.mark.slow
def test_two_models_stand_side_by_side_and_a_budget_is_kept_or_not(bench: Bench, tmp_path: Path) -> None:
    """Accuracy is the evaluation run's, speed the last bench's, size the store's; a budget that cannot be kept fails.

    Figures of a model as it was before do not count for what it is now.
    """
    pytest.importorskip("mlx_lm")
    bench.write("conf/profile/all.yaml", ALL)
    bench.write("tasks/test.jsonl", "".join(json.dumps(t) + "\n" for t in TASKS))
    bench.write("conf/dataset/tasks.yaml", "path: tasks\n")
    for name, hidden in (("m1", 256), ("m2", 320)):
        make.model(tmp_path / name, hidden=hidden)
        bench.write(f"conf/model/{name}.yaml", f"path: {tmp_path / name}\n")
    bench("new", "experiment", "e1", "--from", "tasks", "model=m1", "dataset=tasks", "context=128")
    assert bench("apply", "--yes")[0] == 0
    code, told = bench("models", "compare", "m1", "m2")
    assert code == 0
    assert "model.m2 has a gap: evaluate it" in told
    assert "model.m1 has a gap: `lab bench model.m1`" in told
    bench("new", "experiment", "e2", "--from", "tasks", "model=m2", "dataset=tasks", "context=128")
    assert bench("apply", "--yes")[0] == 0
    quick = ("--depths", "8", "--tokens", "4", "--repeats", "1")
    assert bench("bench", "m2", *quick)[0] == 0
    bench.write("conf/model/m1.yaml", f"path: {tmp_path / 'm1'}\nbudget: {{load_s: 600, ttft_ms: 600000}}\n")
    code, told = bench("bench", "m1", *quick)
    assert (code, told.count("PASS"), "FAIL" in told) == (0, 2, False), told
    bench.write("conf/model/m1.yaml", f"path: {tmp_path / 'm1'}\nbudget: {{load_s: 600, decode_tps: 1e9}}\n")
    code, told = bench("bench", "m1", *quick)
    assert (code, told.count("PASS"), "FAIL  decode_tps" in told) == (1, 1, True), told
    rows = json.loads(bench("models", "compare", "m1", "m2", "--json")[1])
    measured = [json.loads(line) for line in (bench.root / "state/bench.jsonl").read_text().splitlines()]
    for row, experiment, name in zip(rows, ("e1", "e2"), ("m1", "m2"), strict=True):
        run = newest(bench, experiment)
        assert (row["accuracy"], row["run"]) == (run.result["metrics"]["accuracy"], run.id)
        speeds = [m["tokens_per_second"] for m in measured if m["address"] == f"model.{name}"]
        assert row["tokens_per_second"] == speeds[-1]
        assert row["bytes"] == sum(p.stat().st_size for p in (tmp_path / name).iterdir())
    assert rows[0]["bytes"] != rows[1]["bytes"]
    head, *body = bench("models", "compare", "m1", "m2")[1].splitlines()
    assert head.split() == ["model", "accuracy", "tokens/s", "size", "run"]
    assert [line.split()[0] for line in body] == ["model.m1", "model.m2"]
    make.model(tmp_path / "m1", hidden=384)
    rows = json.loads(bench("models", "compare", "m1", "m2", "--json")[1])
    assert (rows[0]["accuracy"], rows[0]["tokens_per_second"]) == (None, None)
