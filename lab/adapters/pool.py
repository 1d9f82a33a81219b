"""Pool: the cards of every host that shares this state folder, and which run holds each.

This host's are read now; each other's as it last noted them in `state/cards-HOST.json`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.adapters.admission_ledger import ledger, place
from lab.core.stages import common
from lab.runs import cards
from lab.runs.cards import Card
from lab.runs.folder import put


@dataclass(frozen=True, slots=True)
class Held:
    """A card and the run that it is given to; empty where it is free."""

    card: Card
    by: str


@dataclass(frozen=True, slots=True)
class Cards:
    """The cards of a host as they were at a moment."""

    host: str
    at: float
    cards: tuple[Held, ...]


def note(state: Path) -> list[Card]:
    """The cards of this host, also told to the others."""
    state = common(state)
    found = cards.read()
    if found and state.is_dir():
        text = json.dumps({"at": time.time(), "cards": [asdict(c) for c in found]})
        with contextlib.suppress(OSError):
            put(state / f"cards-{socket.gethostname()}.json", text)
    return found


def hosts(state: Path) -> list[Cards]:
    """Every host's cards, this one's first."""
    state = common(state)
    here = socket.gethostname()
    mine = note(state)
    entries: list[dict[str, Any]] = []
    if place(state).exists():
        with ledger(state) as book:
            entries = [dict(e) for e in book.entries]
    found = [Cards(here, time.time(), _held(mine, entries))]
    for file in sorted(state.glob("cards-*.json")):
        host = file.stem.removeprefix("cards-")
        if host != here:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                noted = json.loads(file.read_text(encoding="utf-8"))
                known = [Card(**c) for c in noted["cards"]]
                found.append(Cards(host, float(noted["at"]), _held(known, _told(place(state, host)))))
    return found


def _held(known: Iterable[Card], entries: Iterable[dict[str, Any]]) -> tuple[Held, ...]:
    """Each card with its run. Pure."""
    by = {c: str(e["name"]) for e in entries if e.get("held") for c in e.get("cards") or ()}
    return tuple(Held(card, by.get(card.index, "")) for card in known)


def _told(path: Path) -> list[dict[str, Any]]:
    """What another host's ledger says; whether its processes live only that host knows."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return [e for e in found if isinstance(e, dict)]
    return []
