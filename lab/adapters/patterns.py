"""What backups leave out, as restic spells it: every tool is given the same patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def excluded(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path is left out: a pattern without a leading slash fits anywhere, what lies below goes too."""
    found = re.compile("|".join(regex(p) for p in patterns) or r"(?!)")
    return lambda path: found.match(path) is not None


def literal(path: str) -> str:
    """A path as a pattern that means only itself."""
    return "".join(f"\\{c}" if c in "*?[\\" else c for c in path)


def plain(pattern: str) -> str:
    """The path a pattern means where it means only one; else empty."""
    wild = re.search(r"(?<!\\)[*?\[]", pattern.replace("\\\\", ""))
    return "" if wild or not pattern.startswith("/") else re.sub(r"\\(.)", r"\1", pattern)


def regex(pattern: str, root: str = "/") -> str:
    """A pattern as an anchored regular expression; `root` is how absolute paths begin."""
    parts = []
    for part in pattern.strip("/").split("/"):
        # A backslash takes the next character as it is, as in Go's filepath.Match.
        tokens = re.findall(r"\\.|\[\^?[^\]]+\]|.", part)
        known = {"*": "[^/]*", "?": "[^/]"}
        text = "".join(
            known.get(t, t if t.startswith("[") and t.endswith("]") else re.escape(t.removeprefix("\\")))
            for t in tokens
        )
        parts.append("(?:[^/]+/)*" if part == "**" else f"{text}/")
    head = root if pattern.startswith("/") else f"{root}(?:.*/)?"
    return f"^{head}{''.join(parts).removesuffix('/')}(?:/.*)?$"
