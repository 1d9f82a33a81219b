"""Where things lay on another machine and lie on this one: paths in names, links, texts and digests follow."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lab.app.lab import Lab
from lab.core import layout
from lab.core.address import Address
from lab.core.facts import digest
from lab.core.record import Record


def of(lab: Lab) -> dict[str, str]:
    """The places of a lab by name: its root, state and stores, and the home of who owns it."""
    stores = layout.stores(lab.head.get("lab") or {}, str(lab.store))
    found = {f"store {name}": str(Path(str(b.get("path"))).expanduser()) for name, b in stores.items()}
    return {"root": str(lab.root), "state": str(lab.state), **found, "home": str(Path.home())}


@dataclass(frozen=True)
class Moved:
    """Old places → new ones; the longest old place that fits a path is taken."""

    pairs: Mapping[str, str]
    digests: Mapping[str, str] = field(default_factory=dict)
    """Input digests that held an old place → the same with the new one."""

    @classmethod
    def between(cls, old: Mapping[str, str], new: Mapping[str, str]) -> Moved:
        """From the places of one lab to those of another; what stays where it was is left out."""
        return cls({old[n]: new[n] for n in old if n in new and old[n] != new[n]})

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        # A path ends where no further character of a name follows; it begins where none stands before it.
        names = "|".join(re.escape(p) for p in sorted(self.pairs, key=len, reverse=True))
        paths = rf"(?<![\w.~/-])(?:[a-z]+:///?)?(?P<place>{names})(?=$|[^\w.-]|[.](?:$|\W))" if names else ""
        known = "|".join(sorted(self.digests))
        both = "|".join(p for p in (paths, rf"\b(?P<digest>{known})\b" if known else "") if p)
        return re.compile(both) if both else None

    def text(self, text: str) -> str:
        """A text with every old place and digest replaced. Pure."""
        if self._pattern is None:
            return text

        def new(match: re.Match[str]) -> str:
            groups = match.groupdict()
            if place := groups.get("place"):
                return match[0].removesuffix(place) + self.pairs[place]
            return self.digests[match[0]]

        return self._pattern.sub(new, text)

    def path(self, path: str) -> str:
        """Where a path is now. Pure."""
        for old in sorted(self.pairs, key=len, reverse=True):
            if path == old or path.startswith(old.rstrip("/") + "/"):
                return self.pairs[old] + path[len(old) :]
        return path

    def records(self, records: Mapping[Address, Record]) -> tuple[dict[Address, Record], Moved]:
        """The records as if they had been made here, and the moves with the digests that changed by it. Pure."""
        digests: dict[str, str] = {}
        done: dict[Address, Record] = {}

        def relocate(address: Address) -> None:
            record = records[address]
            if address in done:
                return
            done[address] = record
            for needed in record.inputs.get("requires", {}):
                if Address(needed) in records:
                    relocate(Address(needed))
            inputs = replace(self, digests=digests).text(record.inputs_json)
            if inputs != record.inputs_json:
                digests[record.digest] = digest([address.kind, json.loads(inputs)])

        for address in records:
            relocate(address)
        whole = replace(self, digests=digests)
        return {a: whole.record(r) for a, r in records.items()}, whole

    def record(self, record: Record) -> Record:
        """A record as if it had been made here. Pure."""
        return replace(
            record,
            digest=self.text(record.digest),
            facts_json=self.text(record.facts_json),
            inputs_json=self.text(record.inputs_json),
            declaration_json=self.text(record.declaration_json),
            uses_json=self.text(record.uses_json),
        )
