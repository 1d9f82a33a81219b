"""Graph: which resources need which; order, cycles and consequences."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=str)


def order(needs: Mapping[K, Iterable[K]]) -> list[K]:
    """Every key after all it needs; ties by name, so that the same graph gives the same order. Pure.

    Needs that are no keys are ignored. Keys on a cycle, and those that need them, are left out: see `cycle`.
    """
    waits: dict[K, int] = {}
    feeds: dict[K, list[K]] = {}
    for key, wants in needs.items():
        known = {w for w in wants if w in needs}
        waits[key] = len(known)
        for w in known:
            feeds.setdefault(w, []).append(key)
    ready = deque(sorted(k for k, n in waits.items() if n == 0))
    out: list[K] = []
    while ready:
        key = ready.popleft()
        out.append(key)
        freed = []
        for fed in feeds.get(key, ()):
            waits[fed] -= 1
            if waits[fed] == 0:
                freed.append(fed)
        ready.extend(sorted(freed))
    return out


def cycle(needs: Mapping[K, Iterable[K]]) -> list[K]:
    """One cycle, as the keys along it with the first repeated at the end; empty where there is none. Pure."""
    sound = set(order(needs))
    left = {
        k: sorted(w for w in wants if w in needs and w not in sound) for k, wants in needs.items() if k not in sound
    }
    if not left:
        return []
    key = min(k for k, wants in left.items() if wants)
    seen: dict[K, int] = {}
    path: list[K] = []
    while key not in seen:
        seen[key] = len(path)
        path.append(key)
        key = left[key][0]
    return [*path[seen[key] :], key]


def downstream(needs: Mapping[K, Iterable[K]], start: Iterable[K]) -> set[K]:
    """All that need any of `start`, directly or not, `start` itself left out unless needed. Pure."""
    feeds: dict[K, list[K]] = {}
    for key, wants in needs.items():
        for w in wants:
            feeds.setdefault(w, []).append(key)
    out: set[K] = set()
    todo = list(start)
    while todo:
        for fed in feeds.get(todo.pop(), ()):
            if fed not in out:
                out.add(fed)
                todo.append(fed)
    return out
