"""A warm process to fork from, and the labs that are stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import labs, shim
from tests.faults.beside import Bench, stood
from tests.faults.campaign import Deed
from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Forks children that run `lab`."""
    found = Zygote(tmp_path_factory.mktemp("zygote"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def shimmed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """The same, with `shim.c` under every process: syncs that fail and clocks that jump."""
    folder = tmp_path_factory.mktemp("shim")
    found = Zygote(folder, shim.compiled(folder))
    yield found
    found.close()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny real model in a folder, and `rows`, a dataset, beside it."""
    from tests.models import make

    folder = tmp_path_factory.mktemp("source") / "tiny"
    make.safetensors(folder)
    rows = folder.parent / "rows"
    rows.mkdir()
    (rows / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deed]:
    """What interrupts each heavier kind: a model of random weights, a local wheel and its lock are made once."""
    return labs.bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def stands(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """What both states of a lab with a living run are made of."""
    return stood(tmp_path_factory.mktemp("beside"))


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: a thousand applies wait for no disk. A killed process loses nothing there
    that it would keep elsewhere; what only a power cut loses is the matter of `test_order.py`."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="lab-faults-", dir=memory))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
