"""Several processes of one run are started by the framework's own launcher, and end as truthfully as one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from lab.adapters.experiments import launched
from lab.runs.folder import RunFolder
from tests.experiments.conftest import Bench

MLX = """\
import sys
import mlx.core as mx
import lab.sdk as lab
group = mx.distributed.init()
total = mx.distributed.all_sum(mx.ones(1) * (group.rank() + 1)).item()
if group.rank() == 0:
    lab.log({"total": total, "world": group.size()})
sys.exit(int(sys.argv[1]) if group.rank() == 1 else 0)
"""
TORCH = """\
import sys, torch, torch.distributed as dist
import lab.sdk as lab
dist.init_process_group("gloo")
total = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(total)
if dist.get_rank() == 0:
    lab.log({"total": total.item(), "world": dist.get_world_size()})
dist.barrier()
dist.destroy_process_group()
"""


def test_the_script_s_own_arguments_stay_as_they_are(tmp_path: Path) -> None:
    """Only the leading interpreter is the launcher's business; the launcher is the one beside the interpreter."""
    python = tmp_path / "python"
    (tmp_path / "torchrun").touch()
    words = ("python", "train.py", "--lang", "python")
    assert launched("torchrun", 2, words, str(python)) == [
        str(tmp_path / "torchrun"), "--standalone", "--nproc-per-node=2", "train.py", "--lang", "python",
    ]  # fmt: skip
    assert launched("mlx.launch", 2, words, str(python))[-4:] == [str(python), "train.py", "--lang", "python"]
    assert launched("mlx.launch", 2, words, str(python))[3] == "mlx.launch"


def test_ranks_of_mlx_launch_reduce_together_and_a_failed_one_fails_the_run(bench: Bench) -> None:
    """mlx.launch exits with 0 whatever its ranks do: the run says what they did."""
    pytest.importorskip("mlx.core")
    bench.write("job.py", MLX)
    conf = "command: python job.py {code}\nparams: {code: 0}\nlauncher: mlx.launch\nprocesses: 2\ncode: [job.py]\n"
    bench.write("conf/experiment/e.yaml", conf)
    assert bench("apply", "--yes")[0] == 0, bench("logs", "e")[1]
    (good,) = (RunFolder(p) for p in (bench.root / "state/runs").iterdir())
    assert good.result["metrics"] == {"total": 3.0, "world": 2.0}
    code, told = bench("run", "e", "code=3", "-q")
    assert code == 1
    assert "exit code 3" in told


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_ranks_of_torchrun_reduce_together(bench: Bench) -> None:
    """Two processes over gloo, as one run."""
    bench.write("job.py", TORCH)
    bench.write("conf/experiment/e.yaml", "command: python job.py\nlauncher: torchrun\nprocesses: 2\ncode: [job.py]\n")
    assert bench("apply", "--yes")[0] == 0, bench("logs", "e")[1]
    (run,) = (RunFolder(p) for p in (bench.root / "state/runs").iterdir())
    assert run.result["metrics"] == {"total": 3.0, "world": 2.0}
    assert run.spec["argv"][0] == str(Path(sys.executable).with_name("torchrun"))
