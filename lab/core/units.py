"""Units: numbers as people write and read them."""

from __future__ import annotations

import math
import re
import time

_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size(n: float) -> str:
    """`1.2 MB`, `376.7 GB`: decimal units, as file managers show them. Pure."""
    sign, n = ("-", -n) if n < 0 else ("", n)
    if n < 1000:
        return f"{sign}{n:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        n /= 1000
        if n < 999.95 or unit == "PB":
            break
    return f"{sign}{n:.1f} {unit}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2 h 10 min`, `3 days`. Pure."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"


def parse_size(text: str) -> int:
    """`460GB`, `1.5 GiB`, `13B`, `8k` as a number of bytes (or units); ValueError where it is none. Pure."""
    m = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    if not m:
        raise ValueError(f"{text!r} is no size: expected a number with B, kB, MB, GB, TB, MiB or GiB")
    found = float(m[1]) * _SUFFIX[(m[2] or "").lower()]
    if found == math.inf:
        raise ValueError("it is no size: it has too many digits")
    return round(found)


_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "day": 86400, "days": 86400}


def parse_duration(text: str) -> float:
    """`90`, `30s`, `90m`, `12 h`, `2 days` as seconds; ValueError where it is none. Pure."""
    m = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text)
    if not m or m[2] not in _SECONDS:
        raise ValueError(f"{text!r} is no time: expected seconds, or a number with s, m, h or d")
    return float(m[1]) * _SECONDS[m[2]]


def moment(at: object, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment in seconds since the epoch, as local time; what no clock ever showed (a damaged record) is said so."""
    try:
        return time.strftime(form, time.localtime(float(str(at))))
    except (ValueError, OverflowError, OSError):
        return "at no time that can be read"
