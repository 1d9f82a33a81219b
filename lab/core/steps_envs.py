"""Steps of environments: solve into a lock, install from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lab.core.facts import Facts
from lab.core.step import Step


@dataclass(frozen=True, slots=True)
class LockEnv(Step):
    """The lock of an env under `conf/lock/env/` answers the spec for every platform, moving only what must move."""

    verb: ClassVar[str] = "lock-env"
    uses: ClassVar[tuple[str, ...]] = ("network",)

    name: str
    spec: Facts
    """The whole spec after `extends` and `template`: see `lab.core.envspec`."""
    osx: str = ""
    """The macOS version of this host, filled in where the spec names none."""
    update: tuple[str, ...] = ()
    """Packages that may move although the locked ones still fit; `*` means all."""
    pins: bool = False
    """Whether the summary holds the hashes of all packages itself, and no conda-lock file is written."""


@dataclass(frozen=True, slots=True)
class InstallEnv(Step):
    """`link` leads to a prefix that holds exactly what the lock says for `platform`.

    A new prefix is built beside the old one and the link is switched when it is whole; an intact or repairable prefix
    of the same lock is repaired in place.
    """

    verb: ClassVar[str] = "install-env"
    uses: ClassVar[tuple[str, ...]] = ("network",)

    name: str
    link: str
    platform: str
    lock: str = ""
    """Digest of the lock's part for this platform; empty takes what an earlier step has locked."""
    variables: Facts | None = None
    commands: tuple[str, ...] = ()
    """Smoke tests: a prefix that fails one is never switched to."""
    container: str = ""
    """Where a Containerfile of the same lock is kept; empty makes none."""


@dataclass(frozen=True, slots=True)
class RemoveEnv(Step):
    """Neither the link nor any prefix of the environment is left; package caches stay."""

    verb: ClassVar[str] = "remove-env"

    name: str
    link: str


@dataclass(frozen=True, slots=True)
class TestFramework(Step):
    """A framework has passed its smoke test, and the result is kept."""

    __test__: ClassVar[bool] = False
    verb: ClassVar[str] = "test-framework"
    uses: ClassVar[tuple[str, ...]] = ("cpu",)

    name: str
    framework: str
    link: str = ""
    """The env it lives in; empty for a program, or for Lab's own Python."""
    program: str = ""
    variables: Facts | None = None
    smoke: str = ""
    """A shell line of the user's own instead of the shipped test."""
