"""Kind: what a type of thing must answer. A kind answers and never acts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Protocol, Self, get_args, get_origin

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import core_schema

from lab.core.address import Address
from lab.core.block import Block
from lab.core.change import Change
from lab.core.facts import Facts
from lab.core.forecast import NOTHING, Forecast
from lab.core.host import Host
from lab.core.step import Step
from lab.core.world import World


class RefTo:
    """Makes a field refer to resources of these kinds by name: `of: Annotated[Address, RefTo("model")]`.

    A bare name means the first kind; `kind.name` may name any of them.
    """

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            raise ValueError(f"expected the name of a {' or '.join(self.kinds)}")
        if value.partition(".")[0] in self.kinds and "." in value:
            return Address(value)
        return Address.of(self.kinds[0], value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self, handler(source))


class Ref:
    """`Ref["model"]` is short for `Annotated[Address, RefTo("model")]`, where no type checker looks."""

    def __class_getitem__(cls, kinds: str | tuple[str, ...]) -> Any:
        return Annotated[Address, RefTo(*((kinds,) if isinstance(kinds, str) else kinds))]


class Context(Protocol):
    """What a declaration may know besides itself: a read-only value made by `declare/`. Reading it is pure."""

    @property
    def address(self) -> Address:
        """The resource's own address."""
        ...

    @property
    def host(self) -> Host:
        """The machine the lab is for."""
        ...

    @property
    def root(self) -> str:
        """The lab's repository, absolute."""
        ...

    @property
    def store(self) -> str:
        """The model store, absolute."""
        ...

    @property
    def state(self) -> str:
        """`state/`, absolute."""
        ...

    @property
    def offline(self) -> bool:
        """Whether every connection but loopback is refused."""
        ...

    @property
    def lab(self) -> Mapping[str, Any]:
        """The head's `lab:` block."""
        ...

    @property
    def lock(self) -> Mapping[str, Any] | None:
        """This resource's lock, `conf/lock/KIND/NAME.yaml`; None where it has none."""
        ...

    def declaration(self, ref: str) -> Any:
        """The declaration a reference names."""
        ...

    def levels(self, ref: str) -> tuple[Address, ...]:
        """The resources a reference stands for: the levels of a ladder, or the one it names."""
        ...

    def of(self, ref: str) -> Context:
        """The context of the resource a reference names."""
        ...

    def digest(self, ref: str) -> str:
        """The input digest of the resource a reference names."""
        ...

    def recorded(self, ref: str) -> Facts | None:
        """The facts the ledger holds for a reference; None before its first apply."""
        ...

    def path(self, text: str) -> str:
        """`text` made absolute: `~` is the home, a relative path starts at the lab's repository."""
        ...

    def content(self, path: str) -> str:
        """Content hash of a file or tree in the repository: hex SHA-256; empty where there is none."""
        ...

    def text(self, path: str) -> str | None:
        """The text of a small file in the repository (or shipped with Lab); None where there is none."""
        ...


class Declaration(Block):
    """The base of every kind: the fields all kinds take, and the questions a kind answers.

    A kind is one module `lab/kinds/KIND.py` with one subclass. Fields carry docstrings; the docs page, the JSON schema
    and the help are made from them.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind: ClassVar[str] = ""
    fixed: ClassVar[frozenset[str]] = frozenset()
    """Fields whose difference replaces the resource instead of updating it; `*` means every field."""
    derived: ClassVar[bool] = False
    """Whether it is made from others by work: then only proven provenance (an observed fact `digest`) is adopted."""
    reruns: ClassVar[bool] = False
    """Whether a change is called a rerun (experiments, evaluations)."""
    holds_data: ClassVar[bool] = False
    """Whether destroying it may lose a person's data, so that drift makes destroy ask by name."""
    beside: ClassVar[frozenset[str]] = frozenset()
    """Wanted facts that are no part of the digest: where only they differ it is updated, and never made again."""
    pinned: ClassVar[frozenset[str]] = frozenset()
    """Fields that say which version of a thing is meant: `lab promote` takes them from one stage to another."""
    written: ClassVar[Mapping[str, str]] = {}
    """Field → the key it is written under where that is another, so that what is wrong is told where it stands."""
    aside: ClassVar[frozenset[str]] = frozenset({"description", "tags", "protect", "enabled", "after", "overwrite"})
    """Fields that do not affect the result and never enter the digest; a kind adds its own with `aside | {...}`."""

    description: str = ""
    """What it is for, in a line."""
    tags: tuple[str, ...] = ()
    """Words to select by."""
    protect: bool = False
    """Refuse to destroy or replace it, even when it is no longer declared."""
    enabled: bool = True
    """Whether it is part of the lab; `false` plans it as no longer wanted."""
    needs: tuple[str, ...] = ()
    """Addresses that must be realized first and whose change changes this."""
    after: tuple[str, ...] = ()
    """Addresses that must be realized first, without this depending on their content."""
    overwrite: bool = False
    """Take the place of an unmanaged thing that differs from what is declared."""

    @classmethod
    def expand(cls, name: str, block: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
        """A ladder's levels: full name → block of each; None where the block is one resource. Pure."""
        return None

    def requires(self) -> tuple[Address, ...]:
        """The resources this one refers to, through its typed reference fields and `needs`. Pure."""
        found: dict[Address, None] = {Address(n): None for n in self.needs}
        for field, refers in _reference_fields(type(self)):
            for ref in refers(getattr(self, field)):
                found[ref] = None
        return tuple(found)

    def inputs(self) -> Facts:
        """The declared values that affect the result: canonical, defaults left out. Pure."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(self.aside))

    def contents(self, context: Context) -> Facts:
        """The locks and content hashes behind the declaration that affect the result. Pure.

        A value None stands for what is not known before apply (not locked).
        """
        return {}

    def check(self, context: Context) -> Iterable[str | tuple[str, str, str]]:
        """What is wrong with this declaration in its context: a summary each, or (summary, field, what to do). Pure."""
        return ()

    def claims(self, context: Context) -> Iterable[str]:
        """What only one resource may hold, in words (`the path /etc/motd`, `port 8080`). Pure."""
        return ()

    def wanted(self, context: Context) -> Facts:
        """The facts that shall be true, as `observe` would report them; what is left out is not asked for. Pure."""
        raise NotImplementedError(type(self).__name__)

    def observe(self, world: World, context: Context) -> Facts | None:
        """The facts that are true now; None where it is absent; raises Unknown where that cannot be told. Reads."""
        raise NotImplementedError(type(self).__name__)

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        """The steps that realize a change, in order. Pure."""
        raise NotImplementedError(type(self).__name__)

    def resolve(self, context: Context) -> Step | None:
        """The step `lab lock` performs to learn what this declaration stands for; None where nothing is to be locked.

        Its outcome becomes the lock `conf/lock/KIND/NAME.yaml`, unless its performer wrote a lock of its own. Pure.
        """
        return None

    def adoption(self, context: Context) -> Iterator[Step]:
        """The steps by which `lab import` makes known what exists on this machine without being recorded.

        They move, copy and change nothing that exists; their performers raise where it does not. Pure.
        """
        yield from ()

    def forecast(self, change: Change, context: Context) -> Forecast:
        """What the change will cost. Pure."""
        return NOTHING

    def with_(self, **values: Any) -> Self:
        """The same declaration with other values, validated. Pure."""
        return type(self).model_validate({**self.model_dump(by_alias=True, exclude_defaults=True), **values})


Refers = Callable[[Any], Iterator[Address]]


@cache
def _reference_fields(cls: type[Declaration]) -> tuple[tuple[str, Refers], ...]:
    return tuple((n, _collect) for n, f in cls.model_fields.items() if _marks(f.annotation, f.metadata))


def reference_kinds(cls: type[Declaration], field: str) -> tuple[str, ...]:
    """The kinds a field may refer to; empty where it is no reference. Pure."""
    info = cls.model_fields[field]
    return next(iter(_marks(info.annotation, info.metadata)), ())


def _marks(annotation: Any, metadata: Iterable[Any] = ()) -> list[tuple[str, ...]]:
    found = [m.kinds for m in metadata if isinstance(m, RefTo)]
    if get_origin(annotation) is Annotated:
        found += [m.kinds for m in get_args(annotation) if isinstance(m, RefTo)]
    for arg in get_args(annotation):
        found += _marks(arg)
    return found


def _collect(value: Any) -> Iterator[Address]:
    if isinstance(value, Address):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _collect(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _collect(v)
