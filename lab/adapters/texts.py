"""Texts a model's own folder may bring: one to calibrate on, one held out to judge by. Recipes leave both."""

from __future__ import annotations

from pathlib import Path

from lab.core.problem import problem

CALIBRATION = "calibration.txt"
"""Text of the kind the model was trained on: importance matrices and learned quantizations look at it."""
HELD_OUT = "held_out.txt"
"""Text the model never saw, nor any calibration: levels are judged by it."""


def text_of(source: Path, declared: str, name: str, what: str) -> Path:
    """The text to measure on: the declared one, else the one of this name in the model's own folder."""
    path = Path(declared) if declared else source / name
    if not path.is_file():
        raise problem(f"{what} needs a text", why=f"{path} is not there", do="name a text file of your own")
    return path
