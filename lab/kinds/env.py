"""env: a locked, isolated software environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ValidationError, field_validator

from lab.core import stages
from lab.core.address import Address
from lab.core.block import Block
from lab.core.change import Action, Change
from lab.core.envspec import KNOWN_PLATFORMS, LOCKED, PLATFORMS, combine, inputs_digest, moves, package
from lab.core.facts import Facts
from lab.core.forecast import Estimate, Forecast
from lab.core.frameworks import issues
from lab.core.kind import Context, Declaration, RefTo
from lab.core.problem import did_you_mean
from lab.core.secret import Place, Secret
from lab.core.step import Remove, Step
from lab.core.steps_envs import InstallEnv, LockEnv, RemoveEnv
from lab.core.world import World

RECIPES = "recipes/env"


class Part(Block):
    """What one platform asks for besides the rest."""

    conda: tuple[Place, ...] = ()
    """Conda packages of this platform only."""
    pip: tuple[Place, ...] = ()
    """Python packages of this platform only; they replace those of the same name."""


class Env(Declaration):
    """A software environment: declared, solved once into a committed lock, rebuilt equal anywhere, watched to the file.

        env/quant.yaml:   channels: [conda-forge]   python: "3.12"   conda: ["numpy >=2"]   pip: [gguf==0.17.1]
        env/agents.yaml:  template: agents   pip: [langchain==1.0.3]   variables: {OPENAI_BASE_URL: http://127.0.0.1:8080/v1}

    Without channels the interpreter is the host's (found by uv), and everything else is from PyPI. `lab lock` writes
    `conf/lock/env/NAME.conda-lock.yml`, a conda-lock file of all platforms, and `NAME.yaml`, its summary for plans;
    with `lock: pins` only the latter, which then holds the hashes.
    Destroying an env removes its prefixes; the shared package cache stays until `lab gc`.
    """

    kind: ClassVar[str] = "env"
    fixed: ClassVar[frozenset[str]] = frozenset({"link"})
    pinned: ClassVar[frozenset[str]] = frozenset({
        "channels", "conda", "pip", "python", "platforms", "on", "template", "virtual_packages", "allow_sdist",
    })  # fmt: skip
    aside: ClassVar[frozenset[str]] = Declaration.aside | {"commands", "solver", "lock"}

    channels: tuple[Place, ...] = ()
    """Conda channels, first wins: a name of anaconda.org, a URL, or a folder of the repository."""
    conda: tuple[Place, ...] = ()
    """Conda packages, as `name >=1,<2`."""
    pip: tuple[Place, ...] = ()
    """Python packages, as `name[extra]>=1`; conda's own packages are never replaced by these."""
    python: str = ""
    """Python's version, quoted: `"3.12"`. Without channels, `host` is the one Lab runs on."""
    platforms: tuple[str, ...] = PLATFORMS
    """The platforms that are locked, all at once."""
    on: Mapping[str, Part] = {}
    """What single platforms ask for besides: `osx-arm64: {pip: [mlx]}`."""
    template: str = ""
    """A template of `recipes/env/` to start from."""
    extends: Annotated[Address, RefTo("env")] | None = None
    """Another env whose spec this one adds to."""
    variables: Mapping[str, Place] = {}
    """Environment variables of everything that runs in it."""
    secrets: Mapping[str, Secret] = {}
    """Environment variables whose values are secrets, by reference; read when something runs, kept nowhere."""
    commands: tuple[str, ...] = ()
    """Smoke tests: shell lines run in the new prefix before it takes the old one's place."""
    virtual_packages: Mapping[str, Mapping[str, str]] = {}
    """What a platform offers: `osx-arm64: {__osx: "15.0"}`; macOS is filled in from the host when locking there."""
    allow_sdist: bool | tuple[str, ...] = False
    """Whether, or which, Python packages may be built from source when there is no wheel."""
    solver: Literal["rattler", "external"] = "rattler"
    """`external` asks a conda, mamba or micromamba found on PATH instead."""
    lock: Literal["full", "pins"] = "full"
    """What is committed: `full` is a conda-lock file, which names where each archive lies; `pins` holds versions and
    hashes of Python packages and names no host."""
    container: str = ""
    """A path where a Containerfile that installs the same lock is kept up to date; empty makes none."""

    @field_validator("python", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, float | int) and not isinstance(value, bool):
            raise ValueError(f'write the version in quotes: python: "{value}" (unquoted, 3.10 would be read as 3.1)')
        return value

    @field_validator("platforms")
    @classmethod
    def _lockable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for platform in value:
            if platform not in KNOWN_PLATFORMS:
                hint = did_you_mean(platform, KNOWN_PLATFORMS)
                raise ValueError(f"{platform} cannot be locked{hint}; use {', '.join(KNOWN_PLATFORMS)}")
        if not value:
            raise ValueError("name at least one platform")
        return value

    @field_validator("conda", "pip")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not package(text):
                raise ValueError(f"{text!r} names no package: expected `name`, then a version condition")
        return value

    # --- the spec ----------------------------------------------------------------------------------------------

    def own(self) -> dict[str, Any]:
        """What this block itself asks for. Pure."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return {k: v for k, v in said.items() if k in (*LOCKED, "variables", "commands")}

    def spec(self, context: Context) -> dict[str, Any]:
        """What this env asks for, with all that it extends and its template; platforms always named. Pure."""
        base: dict[str, Any] = {}
        if self.extends:
            base = context.declaration(self.extends).spec(context.of(self.extends))
        for template in reversed(list(self._templates(context))):
            base = combine(base, template.own())
        return {"platforms": list(self.platforms), **combine(base, self.own())}

    def _templates(self, context: Context) -> Iterator[Env]:
        """The template, then the one that starts from, and so on; ends at one that is not there. Pure."""
        import yaml

        name, seen = self.template, set[str]()
        while name and name not in seen:
            seen.add(name)
            text = context.text(context.path(f"{RECIPES}/{name}.yaml"))
            if text is None:
                return
            # Every scalar stays text, so that 3.10 is not read as 3.1.
            found = Env.model_validate(yaml.load(text, yaml.BaseLoader) or {})  # nosec B506 # a safe loader
            yield found
            name = found.template

    def link(self, context: Context) -> str:
        """Where the env is found: `<lab.envs>/NAME`, by default under `state/envs`; a stage has its own. Pure."""
        shared = str(context.lab.get("envs") or "")
        base = f"{context.path(shared)}/{stages.folder(context.lab)}".rstrip("/") if shared else f"{context.state}/envs"
        return f"{base}/{context.address.name}"

    def locked(self, context: Context) -> Mapping[str, Any] | None:
        """The lock, if it answers the spec as it is now. Pure."""
        lock = context.lock
        return lock if lock and lock.get("inputs") == inputs_digest(self.spec(context)) else None

    def here(self, context: Context) -> Mapping[str, Any]:
        """The lock's part for this host; empty where there is none. Pure."""
        found: Mapping[str, Any] = (self.locked(context) or {}).get("platforms", {}).get(context.host.platform, {})
        return found

    # --- answers -----------------------------------------------------------------------------------------------

    def contents(self, context: Context) -> Facts:
        here = self.here(context)
        old = here or (context.lock or {}).get("platforms", {}).get(context.host.platform, {})
        return {"lock": here.get("digest"), "packages": dict(old.get("packages", {}))}

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        if self.template:
            try:
                found = list(self._templates(context))
            except ValidationError as e:
                said = e.errors()[0]
                where = ".".join(str(x) for x in said["loc"])
                yield (
                    f"the template {self.template} is not valid: {where}: {said['msg']}",
                    "template",
                    "mend the template",
                )
                return
            if not found:
                yield (
                    f"there is no template {self.template}",
                    "template",
                    "`lab recipes list env` names those there are",
                )
                return
        spec = self.spec(context)
        if context.host.platform not in spec["platforms"]:
            declared = ", ".join(spec["platforms"])
            yield (
                f"it is declared for {declared}, and this host is {context.host.platform}",
                "platforms",
                f"add {context.host.platform} to `platforms` and run `lab lock {context.address}`",
            )
        if spec.get("conda") and not spec.get("channels"):
            yield "conda packages are asked for, and no channel", "conda", "add `channels: [conda-forge]`"
        if self.solver == "rattler" and not spec.get("channels") and not spec.get("python"):
            yield "it has neither channels nor a python", "python", 'add `python: "3.12"`, or channels'
        if self.container and not any(p.startswith("linux") for p in spec["platforms"]):
            yield "a container runs linux, and no linux platform is declared", "platforms", "add `linux-64`"
        if self.lock == "pins" and (spec.get("channels") or spec.get("conda")):
            yield "pins are for envs of Python packages only", "lock", "leave `lock:` out, or the conda part"
        lock = self.locked(context)
        if lock and context.host.platform in spec["platforms"] and not self.here(context):
            yield (
                f"the lock has nothing for {context.host.platform}, for which the env is declared",
                "",
                "restore it from git, or remove it and lock again",
            )
        if lock and "lockfile" in lock:
            path = self._lockfile(context, str(lock.get("lockfile")))
            if context.content(context.path(path)) != lock.get("sha256"):
                yield (
                    f"{path} is not the file that was locked: edited, or of another commit",
                    "",
                    "restore it from git, or remove its summary beside it and lock again",
                )

    def _lockfile(self, context: Context, name: str) -> str:
        """The file that a lock sums up and lies beside: a stage's own lock, or the one that stages share. Pure."""
        *own, shared = (f"{folder}/env" for folder in stages.locks("", str(context.lab.get(stages.GROUP) or "")))
        mine = (f for f in own if context.content(context.path(f"{f}/{context.address.name}.yaml")))
        return f"{next(mine, shared)}/{name}"

    def claims(self, context: Context) -> tuple[str, ...]:
        return (self.link(context),)

    def wanted(self, context: Context) -> Facts:
        facts: dict[str, Any] = {
            "link": self.link(context),
            "spec": inputs_digest(self.spec(context)),
            "state": "intact",
        }
        if here := self.here(context):
            facts["lock"] = here["digest"]
            if self.container:
                facts["container"] = self._contained(context)
        if variables := self.spec(context).get("variables"):
            facts["variables"] = dict(variables)
        return facts

    def observe(self, world: World, context: Context) -> Facts | None:
        link = self.link(context)
        stat = world.stat(link)
        if stat is None:
            return None
        if stat.type != "link":
            return {"link": link, "state": f"a {stat.type} that Lab did not make"}
        seen = world.ask("env", link=link, depth=int(world.depth))
        if seen is None:
            return None
        if self.container:
            head = (world.read(context.path(self.container), 120) or b"").decode(errors="replace").partition("\n")[0]
            seen = {**seen, "container": head.removeprefix("# lock: ") if head.startswith("# lock: ") else "not there"}
        return {"link": link, **seen}

    def _contained(self, context: Context) -> str:
        """The digest of the lock's part that a container is made from: this host's, or the first linux one. Pure."""
        parts = (self.locked(context) or {}).get("platforms", {})
        names = [context.host.platform, *parts]
        return str(next((parts[p]["digest"] for p in names if p.startswith("linux") and p in parts), ""))

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        name, link = context.address.name, self.link(context)
        if change.action is Action.DESTROY:
            yield RemoveEnv(name, str((change.recorded or {}).get("link") or link))
            if self.container:
                yield Remove(context.path(self.container))
            return
        here = self.here(context)
        if not here and (lock := self.resolve(context)):
            yield lock
        spec = self.spec(context)
        commands = tuple(spec.get("commands", ()))
        yield InstallEnv(
            name,
            link,
            context.host.platform,
            here.get("digest", ""),
            dict(spec.get("variables", {})),
            commands,
            context.path(self.container) if self.container else "",
        )
        old = (change.recorded or {}).get("link")
        if old not in (None, link):
            yield RemoveEnv(name, str(old))

    def resolve(self, context: Context) -> Step:
        found = re.search(r"macOS (\d+(?:\.\d+)?)", context.host.os)
        return LockEnv(
            context.address.name,
            {**self.spec(context), "solver": self.solver, "template": self.template},
            osx=found[1] if found else "",
            pins=self.lock == "pins",
        )

    def forecast(self, change: Change, context: Context) -> Forecast:
        here = self.here(context)
        notes = tuple(issues(here.get("packages", {}), context.host.platform))
        if here and (change.recorded or {}).get("lock") == here["digest"]:
            return Forecast(notes=notes)
        if here:
            known = here.get("download")
            notes += () if known else ("package sizes are not in the lock",)
            return Forecast(download=Estimate.within(known, 0.05, "lock") if known else None, notes=notes)
        lock = context.lock
        if not lock:
            return Forecast(notes=(f"not locked: `lab lock {context.address}` solves it without installing",))
        part = lock.get("platforms", {}).get(context.host.platform, {})
        moved = moves(self.spec(context), context.host.platform, part.get("packages", {}))
        why = f": {'; '.join(moved[:5])}" if moved else ""
        return Forecast(notes=(f"the lock is stale{why}; `lab lock {context.address}` brings it up to date",))


def address(name: str) -> Address:
    """The address of an env by its bare name or its address. Pure."""
    return Address.parse(name if name.startswith("env.") else f"env.{name}")
