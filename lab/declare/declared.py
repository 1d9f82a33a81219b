"""Declared: everything a lab declares, with its order and digests; a value that plans are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lab.core.address import Address
from lab.core.facts import Facts, digest
from lab.core.graph import order
from lab.core.host import Host
from lab.core.kind import Context, Declaration
from lab.declare.context import DeclaredContext, Surroundings
from lab.declare.marks import locate


class Where(Mapping[Address, tuple[str, int]]):
    """Address → (file, line of its first key); the line is looked up when asked for."""

    def __init__(self, root: Path, files: Mapping[Address, str]) -> None:
        self._root, self._files = root, files
        self._known: dict[Address, tuple[str, int]] = {}

    def __getitem__(self, address: Address) -> tuple[str, int]:
        if address not in self._known:
            file = self._files[address]
            self._known[address] = (file, locate(self._root / file, _path(file, address))[0])
        return self._known[address]

    def __iter__(self) -> Iterator[Address]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def at(self, address: Address, field: Sequence[Any] | str, *, key: bool = False) -> tuple[str, int, int]:
        """File, line and column of one field (dotted, or as a path), as far as the file has it. Reads."""
        file = self._files.get(address, "")
        steps = field.split(".") if isinstance(field, str) else list(field)
        line, column = locate(self._root / file, [*_path(file, address), *steps], key=key) if file else (0, 0)
        return file, line, column


def _path(file: str, address: Address) -> list[str]:
    """Where in `file` the block of a resource begins: nowhere deep, unless the head declares it inline."""
    return [] if file.startswith(f"conf/{address.kind}/") else [address.kind, address.name]


class Declared:
    """What a lab declares. Read-only once `load` returns it."""

    __slots__ = (
        "_around",
        "choices",
        "declarations",
        "digests",
        "head",
        "host",
        "inputs",
        "ladders",
        "needs",
        "order",
        "profile",
        "root",
        "where",
    )

    root: Path
    head: Mapping[str, Any]
    """The resolved head: lab, resources, apply, moved, offline, vars."""
    choices: Mapping[str, str]
    """The option chosen for each group of the head: host, profile, …"""
    profile: str
    host: Host
    declarations: dict[Address, Declaration]
    """Enabled resources, each level of a ladder its own, by address."""
    ladders: dict[Address, tuple[Address, ...]]
    """Ladder → its levels."""
    where: Where
    needs: dict[Address, tuple[Address, ...]]
    """What must be realized first: what is required, and `after`; ladders widened to their levels."""
    order: list[Address]
    inputs: dict[Address, Facts]
    """What is digested: `fields`, `contents`, `requires`."""
    digests: dict[Address, str]

    def __init__(
        self,
        root: Path,
        head: Mapping[str, Any],
        choices: Mapping[str, str],
        around: Surroundings,
        files: Mapping[Address, str],
    ) -> None:
        self.root, self.head, self.choices = root, head, choices
        self.profile = choices.get("profile", "")
        self.host = around.host
        self._around = around
        self.declarations = around.declarations
        self.ladders = around.ladders
        self.digests = around.digests
        self.where = Where(root, files)
        self.needs, self.order, self.inputs = {}, [], {}

    @property
    def store(self) -> str:
        """The model store, absolute."""
        return self._around.store

    def context(self, address: str) -> Context:
        """The context of a resource, declared or not."""
        return cast(Context, DeclaredContext(Address(address), self._around))

    def context_in(self, stage: str, address: str) -> Context:
        """The context a resource has in another stage of the lab."""
        return cast(Context, DeclaredContext(Address(address), self._around.in_stage(stage)))

    def remember(self, revive: Callable[[Address], Declaration | None]) -> None:
        """What is declared no more, and refers to what is declared no more either, is understood from the ledger."""
        self._around.revive = revive

    def context_for(self, address: str, declaration: Declaration) -> Context:
        """A context for a declaration that is no longer declared, from the ledger."""
        return self.context(address)

    def levels(self, ref: str) -> tuple[Address, ...]:
        """The resources a reference stands for."""
        return self.ladders.get(Address(ref)) or (Address(ref),)

    def widen(self, refs: Sequence[Address]) -> tuple[Address, ...]:
        """References with each ladder replaced by its levels, each once. Pure."""
        if not self.ladders:
            return tuple(refs)
        return tuple(dict.fromkeys(level for ref in refs for level in self.levels(ref)))

    def connect(self) -> None:
        """Fills `needs` and `order` from the declarations."""
        for address, declaration in self.declarations.items():
            refs = declaration.requires()
            if declaration.after:
                refs = (*refs, *map(Address, declaration.after))
            self.needs[address] = self.widen(refs) if refs else ()
        self.order = order(self.needs)

    def digest(self) -> None:
        """Fills `inputs` and `digests`, each after those of what it requires."""
        for address in self.order:
            declaration = self.declarations[address]
            requires = declaration.requires()
            inputs = {
                "fields": declaration.inputs(),
                "contents": declaration.contents(self.context(address)),
                "requires": {r: self.digests[r] for r in self.widen(requires)} if requires else {},
            }
            self.inputs[address] = inputs
            self.digests[address] = digest([address.kind, inputs])
        self._around.contents.keep()
