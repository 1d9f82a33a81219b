"""Options and fixtures every test may use."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept` rewrites the expectations of scenario files."""
    parser.addoption("--accept", action="store_true", help="rewrite the expected part of scenario files")
