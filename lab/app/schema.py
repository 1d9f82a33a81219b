"""schema: JSON schemas of the files of conf/, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.core.problem import did_you_mean, problem


def schema(name: str) -> dict[str, Any]:
    """The schema of a kind's files, or of `lab`, `profile`, `stage` or `host`; raises Problems where there is none."""
    from lab.declare.schema import schemas

    known = schemas()
    if name not in known:
        raise problem(f"there is no kind `{name}`{did_you_mean(name, known)}", do="see `lab schema`")
    return known[name]


def write(root: Path) -> list[Path]:
    """The schemas stand under `conf/.schema/` of the lab at `root`; returns those that were changed."""
    from lab.declare.schema import write

    return write(root / "conf" / ".schema")
