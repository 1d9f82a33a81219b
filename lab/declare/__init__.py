"""Hydra composes, overrides and selections apply, blocks become declarations, problems are collected."""

from __future__ import annotations

from lab.declare.declared import Declared
from lab.declare.load import composed, load

__all__ = ["Declared", "composed", "load"]
