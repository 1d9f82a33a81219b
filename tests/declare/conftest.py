"""A lab on disk, made from a mapping of file names to texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.core.problem import Problem, Problems
from lab.declare import Declared, load

LAB = "defaults:\n  - _self_\n  - host: box\nlab: {name: t, id: 0123456789, store: /srv/store}\n"
BOX = "name: box\nplatform: linux-64\nmemory: 8000000000\n"

Files = Mapping[str, str | bytes]
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes `conf/…` files; lab.yaml and a host come along unless given."""

    def made(files: Files = {}, root: Path | None = None) -> Path:  # noqa: B006
        base = root or tmp_path / "lab"
        for name, text in {"lab.yaml": LAB, "host/box.yaml": BOX, **files}.items():
            path = base / "conf" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return base

    return made


def wrong(root: Path, *overrides: str, **options: object) -> tuple[Problem, ...]:
    """The problems that loading gives; fails where it gives none."""
    with pytest.raises(Problems) as caught:
        load(root, overrides, **options)  # type: ignore[arg-type]
    return caught.value.problems


def right(root: Path, *overrides: str, **options: object) -> Declared:
    """What is declared."""
    return load(root, overrides, **options)  # type: ignore[arg-type]


GOOD = "path: /srv/a\ncontent: x\n"
"""The smallest file resource."""
