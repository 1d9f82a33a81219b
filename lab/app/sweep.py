"""sweep: a declared sweep, or one made of overrides, is carried to its end; and what there is to know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from lab.app.activity import projects
from lab.app.guest import note
from lab.app.lab import Lab
from lab.app.reading import unchanging
from lab.core.address import Address
from lab.core.facts import Facts, digest
from lab.core.problem import Problem, Problems, did_you_mean, problem
from lab.core.steps_sweeps import Search
from lab.runs.readers import given


@dataclass(frozen=True)
class Asked:
    """A sweep ready to be carried out."""

    address: Address
    step: Search
    declared: bool
    """Whether it is exactly what the lab declares."""


def sweep(lab: Lab, target: str, words: Sequence[str] = (), fields: Mapping[str, Any] | None = None) -> Facts:
    """The study has its trials; returns its summary. Raises Problems where it cannot be begun or ended early.

    `target` is a declared sweep, or an experiment; `words` are Hydra's sweep overrides of its parameters, or ordinary
    overrides of the lab (`profile=demo`); `fields` are fields of the sweep (`trials`, `sampler`, …).
    """
    found = ask(lab, target, words, fields or {})
    about = projects(lab, [Address.of("experiment", found.step.experiment)])
    note(lab, f"lab sweep {found.address.name}", projects=about)
    unchanging(lab, given(found.step.spec))
    return lab.perform(found.step, found.address)


def ask(lab: Lab, target: str, words: Sequence[str], fields: Mapping[str, Any]) -> Asked:
    """What would be carried out; raises Problems with all that is wrong with it."""
    from lab.kinds import shipped
    from lab.runs.space import parse

    heads = (*shipped(), "lab", "host", "profile", "resources", "moved", "apply", "offline", "vars")
    others = [w for w in words if _head(w) in heads and not _searched(lab, target, w)]
    own = [w for w in words if w not in others]
    if others:
        lab = Lab(lab.root, (*lab.overrides, *others), lab.tell)
    address = find(lab, target)
    said = parse(own)
    if address.kind == "sweep":
        block = lab.declarations[address].model_dump(by_alias=True, exclude_defaults=True)
        experiment = Address(block["experiment"])
    else:
        experiment, block = address, {"experiment": str(address)}
        if not said.space:
            raise problem(
                f"nothing to search in {address}",
                why=f"declared are the sweeps {', '.join(a.name for a in sweeps(lab)) or 'none'}",
                do=f"give a space: `lab sweep {address.name} 'lr=tag(log,interval(1e-5,1e-2))' --trials 20`",
            )
    _known(lab, experiment, said)
    block["space"] = {**{k: v for k, v in block.get("space", {}).items() if k not in said.fixed}, **said.space}
    block["params"] = {**{k: v for k, v in block.get("params", {}).items() if k not in said.space}, **said.fixed}
    block |= {k: _options(k, v) for k, v in fields.items() if v is not None and k != "name"}
    if address.kind == "experiment":
        block["objective"] = block.get("objective") or _objective(lab, experiment)
        name = str(fields.get("name") or experiment.name)
        address = Address(f"sweep.{name}" if f"sweep.{name}" not in lab.declarations else f"sweep.{name}_by_hand")
    return _asked(lab, address, block)


def _options(field: str, value: Any) -> Any:
    """`{name: tpe, n_startup_trials: 20}` on the command line is what it is in YAML."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    from lab.declare.read import read

    found = read(value.encode(), f"--{field}")
    if not isinstance(found.value, dict):
        raise problem(f"--{field} {value} is no mapping", do=f"write --{field} '{{name: …, option: …}}'")
    return found.value


def _asked(lab: Lab, address: Address, block: Mapping[str, Any]) -> Asked:
    from lab.kinds.sweep import Sweep

    try:
        declaration = Sweep.model_validate(block)
    except ValidationError as e:
        raise Problems(*(_fault(str(address), error) for error in e.errors())) from None
    context = lab.context(address)
    wrong = []
    for complaint in declaration.check(context):
        summary, _, do = (complaint, "", "") if isinstance(complaint, str) else complaint
        wrong.append(Problem(summary, do=do, address=address))
    if wrong:
        raise Problems(*wrong)
    same = lab.declarations.get(address) == declaration
    found = digest([address.kind, declaration.inputs(), declaration.contents(context)])
    mark = lab.declared.digests[address] if same else found
    step = declaration.execute(context, mark)
    declared: Any = lab.declarations.get(address)
    if declared is not None and declared.study(context) != step.study:
        step = replace(step, name=step.study)  # a variation: what is declared stays in force
    return Asked(address, step, same)


def _fault(address: str, error: Any) -> Problem:
    where = ".".join(str(p) for p in error["loc"])
    return Problem(
        f"{address}{'.' + where if where else ''}: {error['msg'].removeprefix('Value error, ')}", address=address
    )


def _known(lab: Lab, experiment: Address, said: Any) -> None:
    """A parameter the experiment neither declares nor takes needs a `+`, as in Hydra."""
    known = _parameters(lab, experiment)
    wrong = [n for n in (*said.space, *said.fixed) if n not in known and n not in said.added]
    if wrong:
        raise Problems(
            *(
                Problem(
                    f"{experiment} has no parameter `{n}`{did_you_mean(n, known)}",
                    why=f"it has {', '.join(known) or 'none'}",
                    do=f"name one of these, or add it with +{n}=…",
                )
                for n in wrong
            )
        )


def _parameters(lab: Lab, experiment: Address) -> list[str]:
    """What the experiment declares, and what its function takes."""
    from lab.core import signature
    from lab.kinds.experiment import Experiment

    declaration = lab.declarations[experiment]
    assert isinstance(declaration, Experiment)
    context = lab.context(experiment)
    file = declaration.module(context) if declaration.call and not declaration.source else ""
    text = context.text(context.path(file)) or "" if file else ""
    taken = signature.parameters(text, declaration.call.partition(":")[2])
    return list(dict.fromkeys([*_flat(declaration.params), *taken]))


def _head(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition(".")[0]


def _searched(lab: Lab, target: str, word: str) -> bool:
    """Whether a word that could be an override of the lab (`model=…`) is a parameter of the experiment."""
    name = word.lstrip("+~").partition("=")[0]
    try:
        address = find(lab, target)
        found: Any = lab.declarations[address]
        return name in _parameters(lab, address if address.kind == "experiment" else found.experiment)
    except Problems:
        return False  # the words may declare what is missing


def _objective(lab: Lab, experiment: Address) -> Mapping[str, str]:
    """What an experiment is judged by where nobody said: what it stops by, else the first metric it promises."""
    from lab.kinds.experiment import Experiment

    found = lab.declarations[experiment]
    assert isinstance(found, Experiment)
    if found.stop.get("metric"):
        return {str(found.stop["metric"]): str(found.stop.get("goal", "min"))}
    if found.metrics:
        return {found.metrics[0]: "min"}
    raise problem(f"it is not known what {experiment} is judged by", do="say --minimize METRIC or --maximize METRIC")


def sweeps(lab: Lab) -> list[Address]:
    """Every declared sweep."""
    return [a for a in lab.declarations if a.kind == "sweep"]


def find(lab: Lab, target: str) -> Address:
    """The sweep or experiment of that name or address; a sweep where both have it."""
    known = [a for a in lab.declarations if a.kind in ("sweep", "experiment")]
    if Address(target) in known:
        return Address(target)
    for kind in ("sweep", "experiment"):
        if Address(f"{kind}.{target}") in known:
            return Address(f"{kind}.{target}")
    names = [a.name for a in known]
    raise problem(
        f"`{target}` is neither a sweep nor an experiment{did_you_mean(target, names)}",
        why=f"declared are {', '.join(names[:8])}" if names else "neither is declared",
        do="write conf/sweep/NAME.yaml, or give an experiment and a space",
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    out = []
    for key, value in values.items():
        out.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            out += _flat(value, f"{prefix}{key}.")
    return out
