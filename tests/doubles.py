"""Doubles of the two seams: a world in memory, and a stage without an apply."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.adapters.secrets import resolve
from lab.apply.stage import Places, Work
from lab.core.problem import Unknown
from lab.core.world import Depth, Stat


class MemoryWorld:
    """A world made of a mapping: path → `{content, mode, type, link, uid, gid}`, and answers by question."""

    def __init__(
        self,
        files: Mapping[str, Mapping[str, Any]] | None = None,
        answers: Mapping[str, Any] | None = None,
        depth: Depth = Depth.STAT,
    ) -> None:
        self.files = {k: dict(v or {}) for k, v in (files or {}).items()}
        self.answers = dict(answers or {})
        self.depth = depth

    def stat(self, path: str) -> Stat | None:
        """What the mapping says of a path; a path above a file is a folder."""
        found = self.files.get(path)
        if found is None:
            if any(p.startswith(f"{path}/") for p in self.files):
                return Stat("dir", 0, 0o755, 0, 0, (0, 0, 0, 0, 0))
            return None
        if "unknown" in found:
            raise Unknown(str(found["unknown"]))
        data = str(found.get("content", "")).encode()
        kind = str(found.get("type", "link" if "link" in found else "file"))
        mode = int(str(found.get("mode", "0644")), 8)
        return Stat(kind, len(data), mode, found.get("uid", 0), found.get("gid", 0), (0, 0, len(data), 0, 0))

    def names(self, path: str) -> list[str] | None:
        """The names directly below a path."""
        below = [p[len(path) + 1 :].split("/")[0] for p in self.files if p.startswith(f"{path}/")]
        return sorted(set(below)) if below or self.stat(path) else None

    def read(self, path: str, limit: int = 1 << 20) -> bytes | None:
        """A file's bytes."""
        found = self.files.get(path)
        return None if found is None else str(found.get("content", "")).encode()[:limit]

    def link(self, path: str) -> str | None:
        """A link's target."""
        return self.files.get(path, {}).get("link")

    def sha256(self, path: str) -> str | None:
        """A file's hash: given as `sha256`, or of its content."""
        found = self.files.get(path)
        if found is None:
            return None
        return str(found.get("sha256") or hashlib.sha256(str(found.get("content", "")).encode()).hexdigest())

    def volume(self, path: str) -> int | None:
        """Plenty."""
        return 10**12

    def ask(self, question: str, **details: Any) -> Any:
        """The answer given for a question; Unknown where none was given."""
        if question not in self.answers:
            raise Unknown(f"nobody answers `{question}`")
        answer = self.answers[question]
        return answer(**details) if callable(answer) else answer


def stage(tmp: Path, address: str = "file.x", *, secrets: Callable[[str], str] = resolve) -> Work:
    """A stage whose places lie under `tmp`; what is said is kept in `.said`."""
    said: list[str] = []
    places = Places(tmp, tmp / "state", tmp / "store")
    work = Work(address, places, secrets, lambda path, sha: None, lambda e: said.append(e.text), threading.Event())
    work.said = said  # type: ignore[attr-defined]
    return work
