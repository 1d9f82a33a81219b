"""Options and fixtures every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept` rewrites the expectations of scenario files."""
    parser.addoption("--accept", action="store_true", help="rewrite the expected part of scenario files")


def pytest_configure(config: pytest.Config) -> None:
    """The suite stands alone: no ignored SIGINT handed on from the background, and no store that an owner's lab uses.

    A store stamped by another checkout of the reference lab would rightly be a problem here ("the ledger is missing").
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["LAB_STORE"] = tempfile.mkdtemp(prefix="lab-store-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """What the suite stored goes with it."""
    shutil.rmtree(os.environ["LAB_STORE"], ignore_errors=True)
