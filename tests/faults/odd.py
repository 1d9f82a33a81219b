"""Odd: real values, made odd in one place or a few; what a fuzz feeds to whatever reads them."""

# ruff: noqa: E501

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

TEXTS = [
    "", " ", "\n", "a\nb", "a\x00b", "..", "../x", "../../../../../../tmp/lab-escaped", "/tmp/lab-escaped", "/", "~", "~nobody/x",
    "x" * 5000, "é", "e\u0301", "\u202egnp.exe", "ﬁle", "a/b", "a\\b", "-rf", "--", "$(touch /tmp/lab-escaped)", "`touch /tmp/lab-escaped`",
    "; touch /tmp/lab-escaped", "| touch /tmp/lab-escaped", "${lab.name}", "${oc.env:HOME}", "${no.such}", "${", "}", "%s%n", "{0}",
    "!!python/object/apply:os.system [touch /tmp/lab-escaped]", "null", "true", "1e999", "nan", "file.", ".file", "file.a.b.c.d",
    "model.", "env:", "env:NO_SUCH", "file:/etc/shadow", "command:false", "http://", "http://[", "http://127.0.0.1:1/x", "ftp://x", "file:///etc/passwd",
    "hf://", "9" * 400, "-1", "0", "1 TB", "-5 GB", "99999999999999 PB", "1h", "-1h", "9999999999999d", "\ud800", "*", "[", "(", "a=b", "2026-13-45",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, -(10**30), 1e308, -1e308, 0.1, 1e-320, float("inf"), float("nan"), [], {}, [[]], [None],
    [{}], {"": ""}, {"a": None}, {"x": {"y": {"z": []}}}, ["a", 1, None, {}], [1, 2, 3], {"1": 2},
]  # fmt: skip


def deep(n: int, kind: str = "list") -> Any:
    """Values in values, `n` deep."""
    found: Any = "x"
    for _ in range(n):
        found = [found] if kind == "list" else {"a": found}
    return found


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every part of a value."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*at, key))


def odd(dice: random.Random, old: Any = None) -> Any:
    """Something odd, now and then near to what was there."""
    way = dice.randrange(12)
    if way < 5:
        return dice.choice(TEXTS)
    if way < 9:
        return copy.deepcopy(dice.choice(VALUES))
    if way == 9 and isinstance(old, str) and old:
        at = dice.randrange(len(old) + 1)
        return old[:at] + dice.choice(TEXTS)[:200] + old[at:]
    if way == 9 and isinstance(old, int) and not isinstance(old, bool):
        return dice.choice([old + 1, -old, old * 2**40, float(old), str(old)])
    if way == 10:
        return deep(dice.choice([3, 30, 300]), dice.choice(["list", "dict"]))
    return {str(old)[:40]: old} if dice.random() < 0.5 else [old, old]


def mutate(dice: random.Random, value: Any, most: int = 3) -> Any:
    """A copy with a few parts replaced, dropped, doubled, swapped or given another name."""
    found = copy.deepcopy(value)
    for _ in range(dice.randint(1, most)):
        ways = list(places(found))
        at = dice.choice(ways)
        if not at:
            if dice.random() < 0.05:
                return odd(dice, found)
            continue
        holder = found
        for key in at[:-1]:
            holder = holder[key]
        key, way = at[-1], dice.randrange(10)
        if way < 6:
            holder[key] = odd(dice, holder[key])
        elif way == 6:
            del holder[key]
        elif way == 7:
            source: Any = found
            for step in dice.choice(ways):
                try:
                    source = source[step]
                except (KeyError, IndexError, TypeError):
                    break
            holder[key] = copy.deepcopy(source)
        elif isinstance(holder, dict):
            name = dice.choice([*TEXTS[:20], str(key) + "s", str(key)[:-1]]) if way == 8 else dice.choice(TEXTS)
            holder[name] = holder.pop(key) if way == 8 else odd(dice)
        else:
            holder.insert(dice.randrange(len(holder) + 1), odd(dice))
    return found


def harm(dice: random.Random, data: bytes) -> bytes:
    """The bytes cut, flipped, doubled or with noise in them."""
    if not data:
        return dice.randbytes(dice.randrange(40))
    found, at = bytearray(data), dice.randrange(len(data))
    way = dice.randrange(7)
    if way == 0:
        del found[at:]
    elif way == 1:
        for _ in range(dice.randint(1, 8)):
            found[dice.randrange(len(found))] = dice.randrange(256)
    elif way == 2:
        found[at : at + 64] = dice.randbytes(64)
    elif way == 3:
        found[at:at] = dice.randbytes(dice.randint(1, 99))
    elif way == 4:
        found[at : at + dice.randint(1, 4096)] = bytes(dice.randint(1, 4096))
    elif way == 5:
        found[at:at] = found[dice.randrange(len(found)) :][: dice.randint(1, 400)]
    else:
        found[at : at + 8] = dice.choice([0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]).to_bytes(8, "little")
    return bytes(found)
