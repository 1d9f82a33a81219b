"""Masking: what this process has read of secrets is in nothing that it says."""

from __future__ import annotations

MASK = "•••"
SHORT = 6
"""Values shorter than this are not masked: they are in many words."""
alone = False
"""Whether this process is a command of its own, whose environment is Lab's to change."""
_values: set[str] = set()


def know(value: str) -> None:
    """From now on `masked` hides this value and each line of it, in the forms in which messages carry one."""
    import base64
    import json
    import urllib.parse

    for line in {value, *value.splitlines()}:
        if len(line) >= SHORT:
            forms = (line, urllib.parse.quote(line, safe=""), json.dumps(line)[1:-1], repr(line)[1:-1])
            _values.update(forms, {base64.b64encode(line.encode()).decode().rstrip("=")})


def masked(text: str) -> str:
    """The text without any value that this process has read."""
    for value in sorted(_values, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MASK)
    return text
