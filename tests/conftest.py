"""Options and fixtures every test may use."""

from __future__ import annotations

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept` rewrites the expectations of scenario files."""
    parser.addoption("--accept", action="store_true", help="rewrite the expected part of scenario files")


def pytest_configure(config: pytest.Config) -> None:
    """A suite started in the background inherits an ignored SIGINT, and would hand it to every child."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
