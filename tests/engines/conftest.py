"""One tiny model per test process, and a stage to perform steps on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engines import make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.gguf(tiny, tmp_path_factory.mktemp("gguf") / "tiny.gguf", "F32")
