"""Unresolved: an interpolation that stands for nothing."""

from __future__ import annotations

from typing import Any


class Unresolved(Exception):
    """An interpolation that stands for nothing, with where it stands."""

    def __init__(self, summary: str, do: str = "", at: tuple[Any, ...] = ()) -> None:
        super().__init__(summary)
        self.summary, self.do, self.at = summary, do, at
