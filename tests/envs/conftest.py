"""Fixtures of the environments' tests: one channel for all, and a lab that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.envs.stands import channel


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local channel of real packages; read it only."""
    return channel(tmp_path_factory.mktemp("channel"))
