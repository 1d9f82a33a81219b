"""Generations: one apply each, with who, when, from which commit, and what was declared then."""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab import __version__
from lab.core.address import Address
from lab.core.facts import Facts, canonical
from lab.core.problem import Problems, problem
from lab.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the declarations of a generation came from."""

    revision: str = ""
    """The git commit; empty outside a repository."""
    patch: str = ""
    """What was not committed, as a diff."""
    profile: str = ""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One apply as the ledger tells it."""

    number: int
    at: float
    finished: float | None
    who: str
    host: str
    version: str
    origin: Origin
    verb: str
    summary: Mapping[str, int]
    outcome: str
    """`done`, `failed`, `interrupted`; `running` while it runs or after it was killed."""

    def to_json(self) -> dict[str, Any]:
        """Every field by name; the patch only by its presence."""
        return {
            "generation": self.number,
            "at": self.at,
            "finished": self.finished,
            "who": self.who,
            "host": self.host,
            "version": self.version,
            "commit": self.origin.revision,
            "dirty": bool(self.origin.patch),
            "profile": self.origin.profile,
            "overrides": list(self.origin.overrides),
            "verb": self.verb,
            "summary": dict(self.summary),
            "outcome": self.outcome,
        }


_COLUMNS = "number, at, finished, who, host, version, revision, patch, profile, overrides, verb, summary, outcome"


def begin(ledger: Ledger, origin: Origin, verb: str, declared: Mapping[Address, Facts]) -> int:
    """A new generation is recorded as running, and what was declared for it; returns its number.

    Only what differs from the generation before is stored, so that history grows with changes, not with the lab.
    """
    with ledger.transaction() as db:
        number = int(db.execute("SELECT coalesce(max(number), 0) + 1 FROM generation").fetchone()[0])
        db.execute(
            f"INSERT INTO generation ({_COLUMNS}) VALUES (?,?,NULL,?,?,?,?,?,?,?,?,'{{}}','running')",  # nosec B608 # names of ours
            (
                number,
                time.time(),
                _who(),
                socket.gethostname(),
                __version__,
                origin.revision,
                origin.patch,
                origin.profile,
                json.dumps(origin.overrides),
                verb,
            ),
        )
        now = {a: canonical(d).decode() for a, d in declared.items()}
        before = dict(db.execute("SELECT address, declaration FROM declared WHERE until IS NULL"))
        ended = [(number, a) for a, text in before.items() if now.get(a) != text]
        db.executemany("UPDATE declared SET until = ? WHERE address = ? AND until IS NULL", ended)
        begun = [(a, number, text) for a, text in now.items() if before.get(a) != text]
        db.executemany("INSERT INTO declared VALUES (?, ?, NULL, ?)", begun)
    return number


def finish(ledger: Ledger, number: int, summary: Mapping[str, int], outcome: str) -> None:
    """The generation is over; how it went is recorded."""
    with ledger.transaction() as db:
        db.execute(
            "UPDATE generation SET finished = ?, summary = ?, outcome = ? WHERE number = ?",
            (time.time(), json.dumps(dict(summary), sort_keys=True), outcome, number),
        )


def latest(ledger: Ledger) -> int:
    """The number of the last generation; 0 before the first."""
    rows = ledger.sql("SELECT coalesce(max(number), 0) FROM generation")
    return int(rows[0][0]) if rows else 0


def generations(ledger: Ledger, limit: int = -1) -> list[Generation]:
    """The last generations, newest first; all of them where the limit is negative."""
    only = "" if limit < 0 else f" LIMIT {limit}"
    rows = ledger.sql(f"SELECT {_COLUMNS} FROM generation ORDER BY number DESC{only}")  # nosec B608 # names of ours
    return [_generation(r) for r in rows]


def generation(ledger: Ledger, number: int) -> Generation | None:
    """One generation by number."""
    rows = ledger.sql(f"SELECT {_COLUMNS} FROM generation WHERE number = ?", (number,))  # nosec B608 # names of ours
    return _generation(rows[0]) if rows else None


def declared_at(ledger: Ledger, number: int) -> dict[Address, Facts]:
    """What was declared for a generation: address → composed block."""
    rows = ledger.sql(
        "SELECT address, declaration FROM declared WHERE since <= ? AND (until IS NULL OR until > ?) ORDER BY address",
        (number, number),
    )
    try:
        return {Address(a): json.loads(text) for a, text in rows}
    except (ValueError, TypeError) as e:
        raise _damaged(f"what generation {number} declared") from e


def history(ledger: Ledger, address: str = "", number: int = 0) -> list[dict[str, Any]]:
    """What happened, newest first: of one resource, of one generation, or of all."""
    where: str = "1 = 1"
    arguments: tuple[str | int, ...] = ()
    if address:
        where, arguments = "address = ?", (address,)
    elif number:
        where, arguments = "generation = ?", (number,)
    names = ("generation", "address", "action", "reason", "before", "after", "at")
    rows = ledger.sql(f"SELECT {', '.join(names)} FROM history WHERE {where} ORDER BY id DESC", arguments)  # nosec B608 # names of ours
    return [dict(zip(names, row, strict=True)) for row in rows]


def _generation(row: tuple[Any, ...]) -> Generation:
    number, at, finished, who, host, version, revision, patch, profile, overrides, verb, summary, outcome = row
    try:
        origin = Origin(str(revision), str(patch), str(profile), tuple(map(str, json.loads(overrides))))
        counts = {str(k): int(v) for k, v in json.loads(summary).items()}
        ended = None if finished is None else float(finished)
        return Generation(
            int(number), float(at), ended, str(who), str(host), str(version), origin, str(verb), counts, str(outcome)
        )
    except (ValueError, TypeError, AttributeError) as e:
        raise _damaged(f"generation {number}") from e


def _damaged(what: str) -> Problems:
    return problem(f"the ledger is damaged: {what} cannot be read", do="restore it with `lab state restore`")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
