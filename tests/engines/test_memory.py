"""A model larger than the memory allowed is converted and quantized all the same (S0-US-002-1)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import gguf_convert, loading
from tests.engines import make

ROOT = Path(__file__).parents[2]
MIB = 1 << 20

CONVERT = """
import json, resource, sys
import gguf, numpy
from lab.adapters import child, gguf_convert
args = json.loads(sys.argv[1])
pages = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (pages + args["limit"],) * 2)
found = gguf_convert.convert(args, lambda *a, **k: None)
print(json.dumps({"peak": child.peak(), **found}))
"""
QUANTIZE = """
import json, resource, sys
import numpy, llama_cpp
from lab.adapters import child, gguf_quant
args = json.loads(sys.argv[1])
used = next(int(x.split()[1]) * 1024 for x in open("/proc/self/status") if x.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + args["limit"],) * 2)
found = gguf_quant.work(args, lambda *a, **k: None)
print(json.dumps({"peak": child.peak(), **found}))
"""


def _run(code: str, **args: object) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(args)], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded model of about 330 MB in bfloat16."""
    folder = tmp_path_factory.mktemp("large")
    whole = make.model(folder / "whole", hidden=1024, feed_forward=4096, layers=11, heads=16, kv_heads=4, spread=1.0)
    sharded = make.shard(whole, folder / "sharded", 4)
    (whole / "model.safetensors").unlink()
    return sharded


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept on linux only")
def test_conversion_and_quantization_need_a_fraction_of_the_model(large: Path, tmp_path: Path) -> None:
    size = sum(p.stat().st_size for p in gguf_convert.shards(large))
    assert size > 300 * MIB
    whole = str(tmp_path / "whole.gguf")
    converted = _run(CONVERT, source=str(large), out=whole, type="AUTO", name="x", limit=64 * MIB)
    assert converted["bytes"] > 300 * MIB  # type: ignore[operator]
    # The source is mapped read-only and may leave memory at any time; what is limited is memory of its own.
    made = _run(
        QUANTIZE, source=whole, out=str(tmp_path / "q" / "q4.gguf"), type="Q4_0", imatrix="", tensors={}, output="",
        embedding="", pure=False, copy=False, limit=160 * MIB,
    )  # fmt: skip
    assert made["bytes"] < 0.35 * size  # type: ignore[operator]
    with loading.load(tmp_path / "q" / "q4.gguf", context=64) as r:
        assert sum(p.token >= 0 for p in r.generate("The", tokens=2)) > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are kept on linux only")
def test_the_limit_is_real(large: Path, tmp_path: Path) -> None:
    """Reading one shard whole does not fit under it: the test above proves something."""
    code = CONVERT.replace(
        "found = ", "open(gguf_convert.shards(__import__('pathlib').Path(args['source']))[0], 'rb').read()\nfound = "
    )
    with pytest.raises(AssertionError, match="MemoryError"):
        _run(code, source=str(large), out=str(tmp_path / "x.gguf"), type="AUTO", name="x", limit=64 * MIB)
