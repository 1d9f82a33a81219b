"""Variants: what histories declare models and rows from, made once per process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path

VARIANTS = (0, 1, 2)


@cache
def sources() -> tuple[Path, str]:
    """Where models and rows lie in three variants each, and the address that serves them."""
    import numpy

    from tests.models import make
    from tests.models.servers import Server

    top = Path(tempfile.mkdtemp(prefix="lab-sources-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    for n in VARIANTS:
        make.safetensors(top / f"model{n}", tensors={"lm_head.weight": numpy.full((8, 8), n, "float16")})
        (top / f"rows{n}").mkdir()
        (top / f"rows{n}/train{n}.jsonl").write_text(f'{{"text": "rows {n}"}}\n' * (n + 1))
    server = Server(top)
    threading.Thread(target=server.http.serve_forever, daemon=True).start()
    return top, server.url


@cache
def weights(n: int) -> Path:
    """A model of random weights that can be quantized."""
    from tests.engines import make

    return make.model(sources()[0] / f"weights{n}", spread=4.0 + n)
