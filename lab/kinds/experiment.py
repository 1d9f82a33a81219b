"""Experiment: code run on declared inputs, known by their digest; it runs again exactly when one of them changes."""

from __future__ import annotations

import itertools
import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from lab.core import given, registering, signature
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import Facts, digest
from lab.core.forecast import Estimate, Forecast
from lab.core.kind import Context, Declaration, Ref
from lab.core.problem import did_you_mean
from lab.core.registering import Registered
from lab.core.run_rules import Keep, Resources, Stop
from lab.core.secret import Place, Secret
from lab.core.step import Step
from lab.core.steps_runs import Execute, Forget, Register
from lab.core.units import parse_duration, parse_size
from lab.core.world import World

_PLACE = re.compile(r"(?<!\{)\{([A-Za-z_][\w.-]*)\}(?!\})")
_GIVEN = ("seed", "run", "python", "checkpoints")

if TYPE_CHECKING:
    Reference: TypeAlias = Address
    Source: TypeAlias = Address
    Environment: TypeAlias = Address
else:
    Reference = Ref["model", "quantization"]
    Source = Ref["dataset", "file", "model", "experiment"]
    Environment = Ref["env"]


class Experiment(Declaration):
    """Code, what it is given, and what it promises.

        experiment/train.yaml:   call: train:main                params: {lr: 0.001, layers: 2}
                                 datasets: {text: corpus}        outputs: {model: model}     metrics: [loss]

    `command:` takes `{lr}`, `{models.base}`, `{datasets.text}`, `{outputs.model}`, `{seed}`, `{run}` and `{python}` in
    its words. Destroying an experiment removes the links to its outputs; its runs stay until `lab gc`.
    """

    kind: ClassVar[str] = "experiment"
    derived: ClassVar[bool] = True
    reruns: ClassVar[bool] = True
    beside: ClassVar[frozenset[str]] = frozenset({"registered"})
    pinned: ClassVar[frozenset[str]] = frozenset({"source"})
    aside: ClassVar[frozenset[str]] = Declaration.aside | {
        "goal", "when", "record", "timeout", "retries", "backoff", "sample", "project", "register_", "tolerance",
        "secrets", "require_clean", "keep", "isolation", "priority",
    }  # fmt: skip

    each: Mapping[str, tuple[Any, ...]] = {}
    """Name → values: one experiment per combination, `NAME.VALUE`, with `<name>` replaced by it in every text."""
    goal: str = ""
    """What it is to find out; the first line of its record."""
    command: str | tuple[str, ...] = ""
    """A shell line, or a list of words run without a shell."""
    call: str = Field("", pattern=r"^([\w.]+:[\w.]+)?$")
    """`package.module:function`, called with the parameters as typed keyword arguments."""
    notebook: str = ""
    """A notebook, run from top to bottom with the parameters in a cell after the one tagged `parameters`."""
    params: Mapping[str, Any] = {}
    """Parameters, nested as you like."""
    env: Environment | None = None
    """The env it runs in; without one, Lab's own Python."""
    models: Mapping[str, Reference] = {}
    """Name → model or quantization it is given the path of."""
    datasets: Mapping[str, Source] = {}
    """Name → dataset it is given the path of; `experiment.NAME` gives all outputs of another."""
    seed: int = Field(42, ge=0)
    """Python's, numpy's, torch's and MLX's generators start here."""
    code: tuple[str, ...] = ()
    """Files and folders whose content counts; without it, the module or script that is run."""
    source: Mapping[Literal["git", "ref"], Place] = {}
    """`{git: URL, ref: TAG}`: the code is a fresh clone of that ref instead of the lab's repository."""
    path: tuple[str, ...] = (".",)
    """Folders from which a `call` imports."""
    cwd: str = "."
    """The folder it runs in."""
    environ: Mapping[str, Place] = {}
    """Environment variables."""
    secrets: Mapping[str, Secret] = {}
    """Environment variable → secret reference; the value is masked in its log."""
    resources: Resources = Resources()
    """`memory`: it begins when that is free and ends above it; `cores`; `accelerator: metal | cuda`; own `cards`."""
    priority: int = 0
    """Of those that wait for room, the higher begin first; see `lab queue`."""
    timeout: float | None = Field(None, gt=0)
    """Seconds, or `90m`, `12h`, after which it is ended."""
    retries: int = Field(0, ge=0)
    """How often a failed run is tried again."""
    backoff: float = Field(0, ge=0)
    """Seconds before the first retry; doubled each time."""
    outputs: Mapping[str, str] = {}
    """Name → file or folder it makes below its output folder."""
    metrics: tuple[str, ...] = ()
    """Metrics it promises; a run without them has failed."""
    patterns: Mapping[str, str] = {}
    """Metric → regular expression for what it prints; the first group is the value."""
    stop: Stop = Stop()
    """When it may stop early: `{metric: loss, patience: 5}` or `{metric: loss, target: 0.1}`."""
    keep: Keep = Keep()
    """Which checkpoints stay: `{last: 2, every: 1000, best: {metric: loss, goal: min}}`; files named `…STEP….…`."""
    when: Literal["stale", "missing", "manual"] = "stale"
    """`stale`: when anything it depends on changes; `missing`: only if it never ran; `manual`: only by `lab run`."""
    processes: int = Field(1, ge=1)
    """Processes started by the framework's own launcher."""
    launcher: Literal["", "torchrun", "mlx.launch"] = ""
    """That launcher; `command:` names the script and its arguments."""
    isolation: Literal["process", "inline"] = "process"
    """`inline` runs a `call` in Lab's own process: no limits, but milliseconds of overhead."""
    tolerance: Mapping[str, Annotated[float, Field(ge=0)]] = {}
    """Metric (or `*`) → relative difference that `lab reproduce` takes as equal; 0 without it."""
    sample: float = Field(5.0, gt=0)
    """Seconds between two readings of the machine."""
    project: str = ""
    """The tracker's experiment; without it, this one's name. Its runs' time is charged to it."""
    register_: Registered | None = Field(None, alias="register")
    """`{name: tiny, output: model, aliases: [best], stage: staging}`: the output is a version in the model registry."""
    record: str = ""
    """Where the Markdown record of each run is written: `docs/experiments/`."""
    require_clean: bool = False
    """Refuse to run while the git tree has uncommitted changes."""

    @classmethod
    def expand(cls, name: str, block: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
        """One experiment per combination of `each`. Pure."""
        each = block.get("each")
        if (
            not isinstance(each, Mapping)
            or not each
            or not all(isinstance(v, (list, tuple)) and v for v in each.values())
        ):
            return None
        rest = {k: v for k, v in block.items() if k != "each"}
        return {
            ".".join([name, *map(str, chosen)]): given.filled(rest, dict(zip(each, chosen, strict=True)))
            for chosen in itertools.product(*each.values())
        }

    @field_validator("timeout", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way(self) -> Experiment:
        named = [n for n in ("command", "call", "notebook") if getattr(self, n)]
        if self.each:
            raise ValueError("`each` takes a mapping of names to lists: `each: {level: [Q8_0, Q4_K_M]}`")
        if len(named) != 1:
            raise ValueError(f"give exactly one of command, call, notebook, not {' and '.join(named) or 'none'}")
        if self.isolation == "inline" and (not self.call or self.env or self.timeout or self.secrets or self.cards()):
            raise ValueError("`isolation: inline` is for a `call` without env, timeout, secrets and cards")
        if self.stop and "metric" not in self.stop:
            raise ValueError("`stop` needs a `metric` to judge by")
        if self.launcher and not self.command:
            raise ValueError("`launcher` needs a `command`: the script and its arguments")
        return self

    # --- what it is made from -------------------------------------------------------------------------------------

    def inputs(self) -> Facts:
        found = dict(super().inputs())
        return {"when": self.when} if self.when != "stale" else found

    def requires(self) -> tuple[Any, ...]:
        return super().requires() if self.when == "stale" else ()

    def counted(self, context: Context) -> tuple[str, ...]:
        """The paths whose content counts. Pure."""
        if self.code:
            return self.code
        if self.notebook:
            return (self.notebook,)
        if self.call:
            return self.modules(context)
        words = self.command.split() if isinstance(self.command, str) else self.command
        return tuple(w for w in words if "/" in w or "." in w if not _PLACE.search(w) and context.content(self._in(w)))

    def module(self, context: Context) -> str:
        """The file of the called module in the repository (or shipped with Lab); empty where it is elsewhere. Pure."""
        return self._file(self.call.partition(":")[0], context)

    def modules(self, context: Context) -> tuple[str, ...]:
        """The called module's file, and those of all modules it imports from `path`, themselves or others. Pure."""
        todo, found = [self.call.partition(":")[0]], dict[str, None]()
        while todo:
            name = todo.pop()
            file = "" if name == "lab" or name.startswith("lab.") else self._file(name, context)
            if file and file not in found:
                found[file] = None
                todo += signature.imports(context.text(context.path(file)) or "", name)
        return tuple(sorted(found))

    def _file(self, module: str, context: Context) -> str:
        return signature.file(module, self.path, lambda name: context.text(context.path(name)) is not None)

    def _in(self, path: str) -> str:
        return path if self.cwd == "." or path.startswith(("/", "~")) else f"{self.cwd}/{path}"

    def contents(self, context: Context) -> Facts:
        if self.when != "stale":
            return {}
        beside = not (self.code or self.call or self.notebook)
        return {"code": {p: context.content(context.path(self._in(p) if beside else p)) for p in self.counted(context)}}

    def check(self, context: Context) -> Iterable[str | tuple[str, str, str]]:
        tracking = context.lab.get("tracking") or {}
        if tracking.get("privacy") == "local_only" and tracking.get("uri"):
            do = "drop `lab.tracking.uri`, or `lab.tracking.privacy`"
            yield "its runs would leave this machine, and the lab is `privacy: local_only`", "", do
        for path in self.code:
            if not context.content(context.path(path)):
                yield f"the code {path} is not there", "code", "name files or folders of the repository"
        if self.notebook and context.text(context.path(self.notebook)) is None:
            yield f"the notebook {self.notebook} is not there", "notebook", "name an .ipynb file of the repository"
        if self.call and not self.source and (file := self.module(context)):
            text = context.text(context.path(file)) or ""
            for complaint in signature.complaints(text, file, self.call.partition(":")[2], self.params):
                yield complaint, "params", f"see {file}"
        known = self.places()
        for word in self.words():
            for name in _PLACE.findall(word):
                if name not in known:
                    hint = did_you_mean(name, known)
                    yield f"{{{name}}} in its command stands for nothing{hint}", "command", "double the braces for text"
        for name, relative in self.outputs.items():
            if relative.startswith(("/", "~")) or ".." in relative.split("/"):
                yield f"the output {name} lies outside its output folder", "outputs", "give a relative path"
        if (memory := self.memory()) and context.host.memory and memory > context.host.memory:
            yield "it may use more memory than the host has", "resources", "lower `resources.memory`"
        want = self.resources.get("accelerator")
        if want and want != context.host.gpu and context.host.source:
            yield f"it needs {want}, which this host has not", "resources", "run it on another host"
        if self.register_:
            rule = self.rule(context)
            made = given.made(context.text, context.state, context.address.name, rule["output"])
            yield from registering.complaints(rule, context.lab.get("approvers") or {}, made, self.when == "manual")
        yield from given.patterns(self.patterns)

    def words(self) -> tuple[str, ...]:
        """The command's words as declared. Pure."""
        return (self.command,) if isinstance(self.command, str) else tuple(self.command)

    def places(self) -> tuple[str, ...]:
        """The names that may stand in braces in the command. Pure."""
        named = [f"{k}.{n}" for k in ("models", "datasets", "outputs") for n in getattr(self, k)]
        return (*_GIVEN, *given.names(self.params), *named)

    def memory(self) -> int | None:
        """Bytes it may use. Pure."""
        return parse_size(said) if isinstance(said := self.resources.get("memory"), str) else said

    def cards(self) -> int:
        """How many cards it is given. Pure."""
        return int(self.resources.get("cards") or (self.resources.get("accelerator") == "cuda"))

    # --- what is true ---------------------------------------------------------------------------------------------

    def view(self, context: Context, output: str = "") -> str:
        """Where its outputs are found: links to those of the run in force. Pure."""
        return f"{context.state}/outputs/{context.address.name}" + (f"/{output}" if output else "")

    def wanted(self, context: Context) -> Facts:
        if self.when == "manual":
            return {"when": "manual"}
        facts = {"state": "finished", "outputs": {n: self.view(context, n) for n in sorted(self.outputs)}}
        return facts | ({"registered": registering.facts(self.rule(context))} if self.register_ else {})

    def rule(self, context: Context) -> Facts:
        """What it says of its output in the model registry; empty where nothing. Pure."""
        return self.register_.rule(context.address.name, tuple(self.outputs)) if self.register_ else {}

    def observe(self, world: World, context: Context) -> Facts | None:
        if self.when == "manual":
            return {"when": "manual", "digest": context.digest(context.address)}
        pointer, result = given.last(lambda path: world.read(path, 64 << 20), context.state, context.address.name)
        if not result:
            return None
        outputs = result.get("outputs") or {}
        found: dict[str, Any] = {
            "state": result.get("state"),
            "run": str(pointer["run"]),
            "digest": pointer.get("digest", ""),
            "metrics": result.get("metrics") or {},
            "outputs": {n: self.view(context, n) for n in sorted(outputs) if given.there(world, outputs[n])},
            "contents": {n: o["sha256"] for n, o in sorted(outputs.items()) if given.there(world, o)},
            "content_digest": str(result.get("content", "")),
        }
        if isinstance(taken := result.get("seconds"), int | float):
            found["seconds"] = round(taken, 3)
        if (rule := self.rule(context)) and (made := outputs.get(rule["output"])):
            known = world.ask("registered", state=context.state, name=rule["name"], sha256=made["sha256"])
            found |= {"registered": registering.seen(rule, known)} if known else {}
        return found

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        name = context.address.name
        if change.action is Action.DESTROY:
            yield Forget(name)
            return
        if self.when == "manual":
            return
        if change.action is not Action.UPDATE:
            yield self.execute(context, change.digest)
        before = (change.recorded or {}).get("registered") or {}
        if self.register_ or before:
            yield Register(name, self.rule(context), before)

    def execute(self, context: Context, key: str, params: Mapping[str, Any] | None = None) -> Execute:
        """The step that runs it; `params` over the declared ones for a run of its own. Pure."""
        values = {**self.params, **(params or {})}
        spec: dict[str, Any] = {
            "name": context.address.name,
            "params": values,
            "seed": self.seed,
            "cwd": context.path(self.cwd),
            "env": dict(self.environ),
            "outputs": dict(self.outputs),
            "metrics": list(self.metrics),
            "patterns": dict(self.patterns),
            "timeout": self.timeout,
            "memory": self.memory(),
            "total": context.host.memory or None,
            "cores": self.resources.get("cores"),
            "cards": self.cards(),
            "priority": self.priority,
            "project": self.project or str((context.lab.get("tracking") or {}).get("project") or ""),
            "quotas": dict(context.lab.get("quotas") or {}),
            "retries": self.retries,
            "backoff": self.backoff,
            "sample": self.sample,
            "stop": dict(self.stop),
            "isolation": self.isolation,
            "tags": {"lab.tags": " ".join(self.tags)} if self.tags else {},
            "models": {n: self._given(r, context) for n, r in self.models.items()},
            "datasets": {n: self._given(r, context) for n, r in self.datasets.items()},
            "path": [context.path(p) for p in self.path],
            "launch": {"launcher": self.launcher, "processes": self.processes} if self.launcher else {},
        }
        spec |= {"call": self.call} if self.call else {}
        command = self.command if isinstance(self.command, str) else list(self.command)
        spec |= {"command": command} if command else {}
        spec |= {"notebook": context.path(self.notebook)} if self.notebook else {}
        env: dict[str, Any] = {}
        if self.env:
            place = context.declaration(self.env).link(context.of(self.env))
            env = {str(self.env): {"digest": context.digest(self.env), "path": place}}
            spec["prefix"] = place
        used = {
            "code": dict(self.contents(context).get("code", {})),
            "env": env,
            "models": spec["models"],
            "datasets": spec["datasets"],
            "tolerance": dict(self.tolerance),
            "tracking": dict(context.lab.get("tracking") or {}),
            "project": self.project,
        }
        return Execute(
            name=context.address.name,
            digest=key,
            spec=spec,
            inputs=used,
            secrets={k: str(v) for k, v in self.secrets.items()},
            source={str(k): v for k, v in self.source.items()},
            keep=dict(self.keep),
            register=self.rule(context),
            record=context.path(self.record) if self.record else "",
            goal=self.goal,
            require_clean=self.require_clean,
        )

    def _given(self, ref: Address, context: Context) -> dict[str, Any]:
        """Address, digest and path of what a reference stands for; of a ladder also each level's path. Pure."""
        levels = context.levels(ref)
        if levels == (ref,):
            return {"address": str(ref), "digest": context.digest(ref), "path": given.place(ref, context)}
        places = {level.removeprefix(f"{ref}."): given.place(level, context) for level in levels}
        whole = digest({level: context.digest(level) for level in levels})
        return {"address": str(ref), "digest": whole, "path": os.path.commonpath(places.values()), "levels": places}

    def forecast(self, change: Change, context: Context) -> Forecast:
        """Its last run tells its time and memory."""
        again = change.action is not Action.UPDATE
        seconds = (context.recorded(context.address) or {}).get("seconds") if again else None
        memory = self.memory()
        return Forecast(
            seconds=Estimate.within(float(seconds), 0.5, "its last run") if seconds else None,
            memory=Estimate(memory, 0, memory, "declared limit") if memory else None,
        )
