"""A prefix that was filled is surveyed to the byte and written down, here or in the process that filled it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lab.adapters import prefix


def filed(target: str) -> dict[str, Any]:
    """What differs from the packages' own records, the content digest, and the bytes; written down where none does."""
    files, wrong, content = prefix.survey(target)
    if not wrong:
        record(Path(target), files)
    return {"wrong": wrong, "content": content, "bytes": sum(f[0] for f in files.values()), "files": len(files)}


def record(target: Path, files: dict[str, list[Any]]) -> None:
    """Every file is written down, and then every folder."""
    ours = target / prefix.OURS
    ours.mkdir(exist_ok=True)
    # Where Python would make them later, changing the mtime of a folder that the plan looks at.
    for folder in {os.path.dirname(rel) for rel in files if rel.endswith(".py")}:
        (target / folder / "__pycache__").mkdir(exist_ok=True)
    (ours / "lease").touch()
    put(ours / "files.json", files)
    put(ours / "dirs.json", prefix.folders(str(target)))
    (ours / "damaged.json").unlink(missing_ok=True)


def put(path: Path, value: Any) -> None:
    """The file holds this, durably, as JSON."""
    temporary = path.with_name(f".{path.name}.lab-tmp")
    with temporary.open("w") as f:
        f.write(json.dumps(value, separators=(",", ":")))
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)
