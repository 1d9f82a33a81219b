"""Record: what the ledger holds of one resource since its last apply."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from lab.core.address import Address
from lab.core.facts import Facts, digest
from lab.core.problem import Problems, problem


@dataclass(frozen=True)
class Record:
    """The recorded state of a resource. JSON columns are parsed when first asked for: most plans need few of them."""

    address: Address
    digest: str
    """Input digest it was realized from."""
    content: str
    """Content digest of what was realized."""
    facts_json: str
    inputs_json: str
    declaration_json: str
    uses_json: str = "{}"
    profiles: str = ""
    """The profiles it was applied under, separated by spaces; another profile's plan leaves it alone."""
    adopted: bool = False
    """Whether Lab found it and did not make it: destroying it merely releases it."""
    protect: bool = False
    pending: bool = False
    """Whether an apply had begun on it and never finished."""
    generation: int = 0
    at: float = 0.0
    """Seconds since the epoch when it was recorded."""

    @cached_property
    def facts(self) -> Facts:
        """The facts observed right after its last apply."""
        return _load(self.facts_json)

    @cached_property
    def inputs(self) -> Facts:
        """`{fields, contents, requires}`: what its digest was made of."""
        found = _load(self.inputs_json)
        if not all(isinstance(found.get(part, {}), dict) for part in ("fields", "contents")):
            raise _damaged()
        return found

    @cached_property
    def declaration(self) -> Facts:
        """The composed block it was realized from."""
        return _load(self.declaration_json)

    @cached_property
    def uses(self) -> Facts:
        """Address → content digest of each resource it was realized from; and, with null, those it merely follows."""
        return _load(self.uses_json)

    @property
    def requires(self) -> tuple[Address, ...]:
        """What it needed when it was realized."""
        return tuple(Address(a) for a in self.uses)

    def sum(self) -> str:
        """Checksum over every column, kept beside them: a row that was altered behind our back is seen."""
        return digest([getattr(self, c) for c in COLUMNS])


COLUMNS = (
    "address",
    "digest",
    "content",
    "facts_json",
    "inputs_json",
    "declaration_json",
    "uses_json",
    "profiles",
    "adopted",
    "protect",
    "pending",
    "generation",
    "at",
)


def _load(text: str) -> Facts:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _damaged()
    return found


def _damaged() -> Problems:
    return problem("the ledger is damaged: a record cannot be read", do="restore it with `lab state restore`")
