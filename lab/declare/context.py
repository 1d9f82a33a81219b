"""Context: what one declaration may know besides itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

from lab.core import stages
from lab.core.address import Address
from lab.core.facts import Facts
from lab.core.host import Host
from lab.core.kind import Declaration
from lab.core.problem import problem
from lab.declare import shipped
from lab.declare.cache import Cache, identity
from lab.declare.content import Contents
from lab.declare.read import read

TEXT = 4 << 20
"""Largest file that `text` gives, in bytes."""


Recorded = Callable[[str, Mapping[str, Any]], Facts | None]
"""Address and the lab's head → the facts the ledger holds."""


class Surroundings:
    """What all contexts of a lab share: places, host, locks, hashes, and the other declarations."""

    def __init__(
        self,
        source: Path,
        root: Path,
        head: Mapping[str, Any],
        host: Host,
        cache: Cache,
        recorded: Recorded | None,
    ) -> None:
        self.source = str(source)
        """Where files are read from: the repository, or an exported commit of it."""
        self.root = str(root)
        self.home = os.path.expanduser("~")
        self.host = host
        lab = head.get("lab")
        self.lab: Mapping[str, Any] = lab if isinstance(lab, dict) else {}
        self.offline = bool(head.get("offline"))
        self.stage = str(self.lab.get("stage") or "")
        self.state = stages.state(self.root, self.stage)
        self.store = self.path(str(self.lab.get("store") or "~/lab-store"))
        self.cache = cache
        self.contents = Contents(cache)
        self.recorded = recorded or (lambda ref, head: None)
        self.head = head
        self.revive: Callable[[Address], Declaration | None] = lambda ref: None
        """What the ledger holds of a resource that is declared no more."""
        self.declarations: dict[Address, Declaration] = {}
        self.ladders: dict[Address, tuple[Address, ...]] = {}
        self.digests: dict[Address, str] = {}
        self._locks: dict[str, dict[str, Path]] = {}

    def in_stage(self, stage: str) -> Surroundings:
        """The same, as another stage of the lab has it. Pure."""
        found = copy(self)
        found.stage = stage
        id = stages.declared(self.lab)
        found.lab = {**self.lab, "id": stages.own(id, stage), stages.GROUP: stage}
        found.state = stages.state(self.root, stage)
        return found

    def path(self, text: str) -> str:
        """`text` made absolute and plain. Pure."""
        if text[:1] == "~":
            text = self.home + text[1:] if text[1:2] in ("", "/") else os.path.expanduser(text)
        elif text[:1] != "/":
            text = f"{self.root}/{text}"
        if "//" in text or "/." in text or text[-1] == "/":
            text = os.path.normpath(text)
        return text

    def lock(self, address: Address) -> Mapping[str, Any] | None:
        """The lock of a resource, parsed when asked for; None where it has none. Reads."""
        kind, name = address.kind, address.name
        if kind not in self._locks:
            self._locks[kind] = self._lying(kind)
        path = self._locks[kind].get(f"{name}.yaml")
        if path is None:
            return None
        file = path.relative_to(self.source).as_posix()
        key = f"lock-{address}"
        now = identity(path.stat())
        kept = self.cache.get(key)
        if kept and kept[0] == now:
            return kept[1]  # type: ignore[no-any-return]
        found = read(path.read_bytes(), file)
        if not isinstance(found.value, dict):
            raise problem("a lock must be a mapping", file=file, line=1, do=f"run `lab lock {address}`")
        if found.plain:
            self.cache.put(key, [now, found.value])
        return found.value

    def _lying(self, kind: str) -> dict[str, Path]:
        """The locks of a kind by file name: those that stages share, and over them the stage's own. Reads."""
        found: dict[str, Path] = {}
        for folder in reversed(stages.locks(self.source, self.stage)):
            with contextlib.suppress(OSError):
                found |= {n: Path(folder, kind, n) for n in os.listdir(f"{folder}/{kind}")}
        return found


class DeclaredContext:
    """The context of one resource; see `lab.core.kind.Context`."""

    __slots__ = ("_around", "_lock", "address")

    def __init__(self, address: Address, around: Surroundings) -> None:
        self.address = address
        self._around = around
        self._lock: Any = ...

    @property
    def host(self) -> Host:
        """The machine."""
        return self._around.host

    @property
    def root(self) -> str:
        """The lab's repository."""
        return self._around.root

    @property
    def store(self) -> str:
        """The model store."""
        return self._around.store

    @property
    def state(self) -> str:
        """`state/`."""
        return self._around.state

    @property
    def offline(self) -> bool:
        """Whether connections are refused."""
        return self._around.offline

    @property
    def lab(self) -> Mapping[str, Any]:
        """The head's `lab:` block."""
        return self._around.lab

    @property
    def lock(self) -> Mapping[str, Any] | None:
        """This resource's lock. Reads, once."""
        if self._lock is ...:
            self._lock = self._around.lock(self.address)
        return self._lock  # type: ignore[no-any-return]

    def declaration(self, ref: str) -> Any:
        """The declaration a reference names; what is declared no more, as it is recorded. Raises Problems."""
        found = self._around.declarations.get(Address(ref)) or self._around.revive(Address(ref))
        if found is None:
            raise problem(f"{self.address} refers to {ref}, which is not one declared resource", address=self.address)
        return found

    def levels(self, ref: str) -> tuple[Address, ...]:
        """The resources a reference stands for: the levels of a ladder, or the one it names."""
        return self._around.ladders.get(Address(ref)) or (Address(ref),)

    def of(self, ref: str) -> Any:
        """The context of the resource a reference names."""
        return DeclaredContext(Address(ref), self._around)

    def digest(self, ref: str) -> str:
        """The input digest of the resource a reference names."""
        return self._around.digests.get(Address(ref), "")

    def recorded(self, ref: str) -> Facts | None:
        """The facts the ledger holds for a reference."""
        return self._around.recorded(ref, self._around.head)

    def path(self, text: str) -> str:
        """`text` made absolute."""
        return self._around.path(text)

    def content(self, path: str) -> str:
        """Content hash of a file or tree; what is not in the repository may have come with Lab."""
        return self._around.contents.hash(self._shipped(path))

    def text(self, path: str) -> str | None:
        """The text of a small file; None where there is none or it is no text."""
        try:
            with open(self._shipped(path), "rb") as f:
                data = f.read(TEXT + 1)
            return data.decode() if len(data) <= TEXT else None
        except (OSError, ValueError):
            return None

    def _shipped(self, path: str) -> str:
        full = self._around.path(path)
        prefix = f"{self._around.root}/"
        if not full.startswith(prefix):
            return full
        inner = full[len(prefix) :]
        here = f"{self._around.source}/{inner}"
        found = None if os.path.lexists(here) else shipped.find(inner)
        return str(found) if found else here
