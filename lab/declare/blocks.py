"""Blocks: the plain values of each resource file, parsed once while the file stands."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.core.problem import Problem, Problems
from lab.declare.cache import Cache, settled
from lab.declare.conf import Conf
from lab.declare.read import read


@dataclass(slots=True)
class Found:
    """The blocks of one kind, and which of them are not finished."""

    blocks: dict[str, Any] = field(default_factory=dict)
    interpolated: set[str] = field(default_factory=set)
    """Names whose block has `${…}` or `???`."""
    hydra: list[str] = field(default_factory=list)
    """Names of files that only Hydra understands."""
    broken: set[str] = field(default_factory=set)
    """Names whose file cannot be read."""


def blocks(conf: Conf, kind: str, names: Sequence[str], cache: Cache, problems: list[Problem]) -> Found:
    """The blocks of `names`; files that cannot be read are added to `problems`. Reads."""
    kept: dict[str, Any] = cache.get(f"kind-{kind}") or {}
    known = conf.kinds[kind]
    found = Found()
    fresh: dict[str, Any] = {}
    now = time.time_ns()
    prefix = f"{conf.conf}/{kind}/"
    for name in names:
        entry = kept.get(name)
        if entry is not None and entry[0] == known[name]:
            if entry[1]:
                found.interpolated.add(name)
            found.blocks[name] = entry[2]
            continue
        file = conf.file(kind, name)
        try:
            with open(f"{prefix}{name}.yaml", "rb") as f:
                got = read(f.read(), file)
        except OSError as e:
            problems.append(Problem("the file cannot be read", file=file, why=e.strerror or ""))
            found.broken.add(name)
            continue
        except Problems as e:
            problems += e.problems
            found.broken.add(name)
            continue
        if not isinstance(got.value, dict):
            what = "is empty" if got.value is None else "is a list" if isinstance(got.value, list) else "is one value"
            do = "give it the fields of its kind, or remove it"
            problems.append(Problem(f"the file {what}, not a mapping", file=file, line=1, do=do))
            found.broken.add(name)
            continue
        if got.hydra:
            found.hydra.append(name)
        if got.interpolated:
            found.interpolated.add(name)
        found.blocks[name] = got.value
        if got.plain and not got.hydra and settled(known[name], now):
            fresh[name] = [known[name], got.interpolated, got.value]
    if fresh:
        cache.hold(f"kind-{kind}", {**{n: e for n, e in kept.items() if n in known}, **fresh})
    return found


def through_hydra(
    conf: Conf, wanted: Mapping[str, Sequence[str]], problems: list[Problem]
) -> dict[str, dict[str, Any]]:
    """Files with a `defaults:` list or a package header as Hydra composes them: kind → name → block. Reads."""
    from lab.declare import compose

    out: dict[str, dict[str, Any]] = {kind: {} for kind in wanted}
    for kind, names in wanted.items():
        for name in names:
            try:
                primary = {"defaults": [{f"{kind}@lab_resource_": name}]}
                values = compose.compose(conf.conf, primary).values
            except compose.Missing as e:
                summary = f"the defaults list names `{e.name}`, which is not there"
                problems.append(Problem(summary, file=conf.file(kind, name), line=1, do="mend the name"))
                continue
            except Problems as e:
                problems += [
                    Problem(
                        "the defaults list does not compose", file=conf.file(kind, name), line=1, why=p.why, do=p.do
                    )
                    if p.file == "conf/lab.yaml"
                    else p
                    for p in e.problems
                ]
                continue
            block = values.pop("lab_resource_", None)
            if values:
                problems.append(
                    Problem(
                        f"the file puts values outside itself, at `{next(iter(values))}`",
                        file=conf.file(kind, name),
                        line=1,
                        do="declare those values in conf/lab.yaml or a profile",
                    )
                )
            out[kind][name] = block if isinstance(block, dict) else {}
    return out
