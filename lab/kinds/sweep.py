"""Sweep: many runs of one experiment that search its parameters for the best outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lab.core import signature
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import Facts, digest
from lab.core.forecast import Estimate, Forecast
from lab.core.kind import Context, Declaration, RefTo
from lab.core.problem import did_you_mean
from lab.core.rules import Rule
from lab.core.space import Space, nested
from lab.core.step import Step
from lab.core.steps_sweeps import ForgetSearch, Search
from lab.core.sweeping import EXHAUSTIVE, NEEDS, PRUNERS, SAMPLERS
from lab.core.units import parse_duration
from lab.core.world import World

_KEPT = ("study", "state", "ended", "complete", "pruned", "failed", "best", "front", "trial_seconds", "digest")
_GOALS = {"min": "min", "max": "max", "minimize": "min", "maximize": "max", "minimise": "min", "maximise": "max"}


MOST = 1_000_000
"""Points that are tried one by one at most: more could not even be listed."""


class Sweep(Declaration):
    """A study: an experiment, the space of its parameters, and what is to be found.

        sweep/lr.yaml:   experiment: train
                         space: {lr: {low: 1e-5, high: 1e-2, log: true}, width: [64, 128], layers: {low: 1, high: 4}}
                         objective: {loss: min}   sampler: tpe   pruner: median   trials: 40   parallel: 2

    Raising `trials` goes on with the study. Another space, objective, sampler, pruner or seed, or other code or data
    of the experiment, begins a new one; the old one stays. The experiment's own values of the searched parameters do
    not matter, so promoting the best does not make the sweep stale. Destroying a sweep forgets what it found; its
    study and runs stay until `lab gc`.
    """

    kind: ClassVar[str] = "sweep"
    derived: ClassVar[bool] = True
    reruns: ClassVar[bool] = True
    aside: ClassVar[frozenset[str]] = Declaration.aside | {
        "experiment", "parallel", "storage", "executor", "reuse", "on_failure", "priority",
    }  # fmt: skip

    experiment: Annotated[Address, RefTo("experiment")]
    """What is run for each point."""
    space: Mapping[str, Any] = Field(min_length=1)
    """Parameter (dotted where nested) → `[a, b, c]`, or `{low, high}` with `step`, `log`, `type: int | float`; any of
    them may have `when: {other: value}`. Both ends are included; two whole numbers make an int."""
    params: Mapping[str, Any] = {}
    """Parameters set for every trial, over the experiment's own."""
    objective: Mapping[str, Literal["min", "max"]]
    """Metric → `min` or `max`; a bare name is minimised; several make a Pareto front."""
    judge: Literal["last", "best"] = "last"
    """Whether a trial is judged by the last value of its metrics or by the best."""
    constraints: tuple[str, ...] = ()
    """Comparisons over parameters and metrics: `width * layers <= 1024`, `peak_memory <= 8e9`. What can be told from
    parameters alone is told before a trial runs."""
    sampler: Mapping[str, Any] = {"name": "tpe"}
    """`grid`, `brute_force`, `random`, `qmc`, `tpe`, `gp`, `cma_es`, `nsga2`, `nsga3`; with options as
    `{name: tpe, n_startup_trials: 20}`, by Optuna's names."""
    pruner: Mapping[str, Any] = {}
    """`median`, `percentile`, `hyperband`, `asha`, `patient`, `threshold`, `wilcoxon`; options as above."""
    trials: int | None = Field(None, ge=1)
    """How many trials shall have ended; not needed where every point is tried."""
    timeout: float | None = Field(None, gt=0)
    """Seconds, or `90m`, `12h`, after which no trial begins."""
    parallel: int = Field(1, ge=1)
    """How many trials run at once."""
    priority: int | None = None
    """Of its trials in the queue of the host, where it is another than the experiment's."""
    seed: int = Field(42, ge=0)
    """The sampler starts here; the trials use the experiment's own seed."""
    stop: Mapping[Literal["target", "patience"], float] = {}
    """`target`: a value that is good enough; `patience`: trials without a better one."""
    budget: float | None = Field(None, gt=0)
    """Seconds, or `12h`, that all trials together may take."""
    on_failure: Literal["continue", "stop"] = "continue"
    """Whether a failed trial ends the sweep. If all of the first trials fail, it ends in any case."""
    reuse: bool = False
    """Take a finished run of the same point, of this or another sweep, instead of running it again."""
    storage: str = ""
    """Where the study lies: empty for a journal file, `sqlite`, a URL of SQLite or PostgreSQL (or a secret reference
    to one), `grpc://HOST:PORT`."""
    executor: Mapping[str, Any] = {}
    """`local`, `dask` or `ray`; `{name: dask, address: tcp://…}`, `{name: dask, hosts: [a, b]}`; hosts are
    those of conf/host/, or what ssh takes, `python` the interpreter there."""

    @field_validator("objective", mode="before")
    @classmethod
    def _objective(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: "min"}
        elif isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            value = dict.fromkeys(value, "min")
        elif isinstance(value, Mapping) and set(value) == {"metric", "goal"}:
            value = {str(value["metric"]): value["goal"]}
        if not isinstance(value, Mapping) or not value:
            raise ValueError("write `loss`, or {loss: min, accuracy: max}")
        return {str(k): _GOALS.get(str(v), v) for k, v in value.items()}

    @field_validator("sampler", "pruner", "executor", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value and not (isinstance(value.get("name"), str) and value["name"]):
            raise ValueError("say which by `name:`, or its name alone")
        return {"name": value} if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _counted(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        if (patience := value.get("patience", 1)) < 1 or patience != int(patience):
            raise ValueError("`patience` is a number of trials: 1 or more")
        return value

    @field_validator("timeout", "budget", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value

    @field_validator("storage")
    @classmethod
    def _no_password(cls, value: str) -> str:
        account, at, _ = value.rpartition("@")
        if at and ":" in account.partition("://")[2]:
            raise ValueError("a password does not belong here: put the URL into the environment and write env:NAME")
        known = ("journal", "sqlite", "sqlite://", "postgresql://", "grpc://", "env:", "file:", "keychain:", "command:")
        if value and not value.startswith(known):
            raise ValueError(
                "`storage` is sqlite, a URL of SQLite or PostgreSQL, grpc://HOST:PORT, or a secret reference"
            )
        return value

    @field_validator("space")
    @classmethod
    def _space(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        return Space.of(value).to_json()

    @field_validator("constraints")
    @classmethod
    def _constraints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Rule(text)
        return value

    @model_validator(mode="after")
    def _sound(self) -> Sweep:
        name = str(self.sampler.get("name", ""))
        if name not in SAMPLERS:
            raise ValueError(f"`{name}` is no sampler{did_you_mean(name, SAMPLERS)}; there are {', '.join(SAMPLERS)}")
        cut = str(self.pruner.get("name", "none")) if self.pruner else "none"
        if cut not in PRUNERS:
            raise ValueError(f"`{cut}` is no pruner{did_you_mean(cut, PRUNERS)}; there are {', '.join(PRUNERS)}")
        if (options := NEEDS.get(cut)) and not set(options) & set(self.pruner):
            raise ValueError(f"{cut} needs `{'` or `'.join(options)}`: write {{name: {cut}, {options[0]}: …}}")
        engine = str(self.executor.get("name", "local"))
        if engine not in ("local", "dask", "ray"):
            raise ValueError(f"`{engine}` is no executor; there are local, dask, ray")
        space = Space.of(self.space)
        if name in EXHAUSTIVE and (size := space.size() or 0) > MOST:
            raise ValueError(
                f"{name} would try {size:,} points: list fewer values, or take a sampler that goes by `trials`"
            )
        if name in EXHAUSTIVE and space.size() is None:
            endless = next(d.name for d in space.dimensions if d.count() is None)
            raise ValueError(f"{name} tries every point, and {endless} is continuous: list its values or give a `step`")
        if name == "grid" and space.conditional:
            raise ValueError("grid would repeat points where `when` leaves a parameter out: use brute_force")
        if name not in EXHAUSTIVE and self.trials is None:
            raise ValueError(f"{name} needs `trials`: it never ends by itself")
        if len(self.objective) > 1 and (cut != "none" or self.stop or name == "cma_es"):
            raise ValueError("several objectives go with neither a pruner, nor `stop`, nor cma_es")
        if both := set(self.space) & set(self.params):
            raise ValueError(f"{min(both)} is both fixed and searched")
        return self

    @model_validator(mode="before")
    @classmethod
    def _after_experiment(cls, value: Any) -> Any:
        """The experiment comes first; that it must not enter the digest whole is said in `contents`."""
        if isinstance(value, Mapping) and isinstance(value.get("experiment"), str) and value["experiment"]:
            name = RefTo("experiment")(value["experiment"])
            after = value.get("after", ())
            if isinstance(after, (list, tuple)) and name not in after:
                return {**value, "after": (*after, str(name))}
        return value

    def requires(self) -> tuple[Address, ...]:
        return tuple(r for r in super().requires() if r != self.experiment)

    def contents(self, context: Context) -> Facts:
        """The experiment, but for its own values of what is searched or fixed here."""
        found, at = self._stale(context), context.of(self.experiment)
        fields = dict(found.inputs())
        fields["params"] = _without(found.params, {*self.space, *self.params})
        needs = {str(level): context.digest(level) for r in found.requires() for level in context.levels(r)}
        return {"experiment": {**fields, **found.contents(at), "name": str(self.experiment), "needs": needs}}

    def _stale(self, context: Context) -> Any:
        return context.declaration(self.experiment).model_copy(update={"when": "stale"})

    def study(self, context: Context) -> str:
        """The study's name: the sweep's, and a hash of what decides which points are tried and how they are judged."""
        decides = ("space", "params", "objective", "judge", "constraints", "sampler", "pruner", "seed")
        own = self.model_dump(mode="json", include=set(decides), exclude_defaults=True)
        return f"{context.address.name}-{digest([own, self.contents(context)])[:8]}"

    def check(self, context: Context) -> Iterable[str | tuple[str, str, str]]:
        found, at = self._stale(context), context.of(self.experiment)
        space = Space.of(self.space)
        point = space.draw(lambda d: d.choices[0] if d.type == "choice" else d.low)
        params = nested(nested(found.params, self.params), point)
        own = _flat(found.params)
        file = found.module(at) if found.call and not found.source else ""
        if file:
            text = at.text(at.path(file)) or ""
            for complaint in signature.complaints(text, file, found.call.partition(":")[2], params):
                yield complaint, "space", f"see {file}"
        elif not found.call:
            for name in (*self.space, *self.params):
                if name not in own:
                    hint = did_you_mean(name, own)
                    yield (
                        f"{self.experiment} has no parameter {name}{hint}",
                        "space",
                        "add it to the experiment's `params`",
                    )
        for metric in self.objective:
            if found.metrics and metric not in found.metrics:
                hint = did_you_mean(metric, found.metrics)
                yield f"{self.experiment} promises no metric {metric}{hint}", "objective", "add it to its `metrics`"
        if found.isolation == "inline" and (self.pruner or self.executor.get("name", "local") != "local"):
            yield "an inline experiment can be neither pruned nor sent elsewhere", "pruner", "set `isolation: process`"

    def wanted(self, context: Context) -> Facts:
        return {"study": self.study(context), "trials": self.trials or "all", "state": "finished"}

    def observe(self, world: World, context: Context) -> Facts | None:
        try:
            found = json.loads(world.read(f"{context.state}/sweeps/{context.address.name}.json") or b"{}")
        except ValueError:
            return None
        if not found or world.stat(f"{context.state}/sweeps/studies/{found.get('study')}") is None:
            return None
        facts = {**{k: found.get(k) for k in _KEPT}, "trials": found.get("trials") or "all"}
        mine = context.digest(context.address)
        if found.get("digest") == mine:
            return facts
        if found.get("state") != "finished":
            return None
        known = context.recorded(context.address) or {}
        if known.get("study") == found.get("study") and _counted(found) >= _counted(known):
            return known  # trials beyond those declared, by `lab sweep --trials`, are no drift
        enough = _counted(found) >= (self.trials or _counted(found))
        if found.get("study") == self.study(context) and enough:
            return {**facts, "trials": self.trials or "all", "digest": mine}
        return None

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        if change.action is Action.DESTROY:
            yield ForgetSearch(context.address.name)
            return
        yield self.execute(context, change.digest)

    def execute(self, context: Context, wanted: str) -> Search:
        """The step that carries the study to its end. Pure."""
        found, at = self._stale(context), context.of(self.experiment)
        run = found.execute(at, "", self.params)
        spec = {k: v for k, v in run.spec.items() if k != "stop" or not self.pruner}
        spec["params"] = nested(found.params, self.params)
        spec["priority"] = spec["priority"] if self.priority is None else self.priority
        code = self.contents(context)["experiment"].get("code") or {}
        plain = found.code or found.cwd == "."
        return Search(
            name=context.address.name,
            study=self.study(context),
            digest=wanted,
            experiment=self.experiment.name,
            spec=spec,
            space=dict(self.space),
            objective=dict(self.objective),
            judge=self.judge,
            constraints=self.constraints,
            sampler=dict(self.sampler),
            pruner={} if self.pruner.get("name") == "none" else dict(self.pruner),
            trials=self.trials,
            timeout=self.timeout,
            parallel=self.parallel,
            seed=self.seed,
            stop={str(k): v for k, v in self.stop.items()},
            budget=self.budget,
            on_failure=self.on_failure,
            reuse=self.reuse,
            storage=self.storage,
            executor=dict(self.executor),
            memory=found.memory(),
            inputs={
                "base": _point_base(self.contents(context)["experiment"]),
                "used": dict(run.inputs),
                "source": dict(run.source),
                "project": found.project,
            },
            secrets=dict(run.secrets),
            watched=tuple(at.path(p if plain else f"{found.cwd}/{p}") for p in code),
        )

    def forecast(self, change: Change, context: Context) -> Forecast:
        """Trials times what one took, over how many run at once."""
        size = Space.of(self.space).size()
        many = min(size, self.trials or size) if size and str(self.sampler["name"]) in EXHAUSTIVE else self.trials or 0
        known, notes = context.recorded(context.address) or {}, []
        done = 0
        if known.get("study") == self.study(context):
            done = _counted(known)
            notes.append(f"goes on with {known['study']}: {done} of {many} trials are done")
        else:
            notes.append(f"a new study of {many} trials" + (f"; {known['study']} stays" if known.get("study") else ""))
        seconds = known.get("trial_seconds") or (context.recorded(self.experiment) or {}).get("seconds")
        memory = context.declaration(self.experiment).memory()
        at_once = min(self.parallel, max(1, many - done))
        return Forecast(
            seconds=Estimate.within(max(0, many - done) * float(seconds) / at_once, 0.5, "trials so far")
            if seconds
            else None,
            memory=Estimate(memory * at_once, 0, memory * at_once, "declared limit") if memory else None,
            notes=tuple(notes),
        )


def _counted(facts: Facts) -> int:
    return sum(int(facts.get(s) or 0) for s in ("complete", "pruned", "failed"))


def _point_base(experiment: Facts) -> Facts:
    return {k: v for k, v in experiment.items() if k != "params"}


def _without(values: Mapping[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if f"{prefix}{key}" in names:
            continue
        inner = _without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        if not isinstance(value, Mapping) or inner or not value:
            out[key] = inner
    return out


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
    return out
