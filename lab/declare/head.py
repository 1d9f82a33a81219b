"""Head: lab.yaml with its host and profile, composed by Hydra once and then kept by content."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.core.facts import digest
from lab.core.problem import Problem, Problems, did_you_mean
from lab.core.stages import GROUP
from lab.declare.cache import Cache
from lab.declare.conf import HEAD, Conf, known_kinds
from lab.declare.marks import locate
from lab.declare.overrides import FILE, Operation
from lab.declare.read import Read, read

_ENV = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)")


KEPT = 8
"""How many compositions (profiles, overrides) are kept at once."""


@dataclass(slots=True)
class Head:
    """The composed head, unresolved; the option chosen per group; and the overrides meant for resources."""

    values: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """The stage in force; empty where none is."""
        found = self.choices.get(GROUP, "")
        return "" if found in ("None", "null") else found


def head(conf: Conf, overrides: Sequence[str], profile: str | None, cache: Cache) -> Head:
    """The head of the lab; raises Problems. Hydra is imported only where nothing is kept for the same texts. Reads."""
    texts = _texts(conf)
    lab = _check(conf, texts)
    asked = [*([f"profile={profile}"] if profile else []), *overrides]
    environ = {n: os.environ.get(n) for t in [*map(_loose, texts.values()), *asked] for n in _ENV.findall(t)}
    key = digest([{n: _loose(t) for n, t in texts.items()}, asked, environ, list(known_kinds())])
    kept: list[dict[str, Any]] = cache.get("head") or []
    for entry in kept:
        if entry["key"] == key:
            return Head(entry["values"], entry["choices"], [Operation(**o) for o in entry["operations"]])
    found, files = _compose(conf, lab, asked)
    if not (files - {str(conf.conf / n) for n in texts}) and _plain(found.values):
        operations = [asdict(o) for o in found.operations]
        entry = {"key": key, "values": found.values, "choices": found.choices, "operations": operations}
        cache.hold("head", [entry, *kept[: KEPT - 1]])
        return Head(_copy(found.values), found.choices, found.operations)
    return found


def _texts(conf: Conf) -> dict[str, bytes]:
    """The head's files by their name in conf/. Reads."""
    paths = [conf.conf / "lab.yaml"]
    for group in sorted(conf.groups):
        paths += sorted((conf.conf / group).rglob("*.yaml"))
    out: dict[str, bytes] = {}
    for path in paths:
        name = path.relative_to(conf.conf).as_posix()
        try:
            out[name] = path.read_bytes()
        except OSError as e:
            why = "there is none" if isinstance(e, FileNotFoundError) else e.strerror or ""
            do = "run `lab init` in an empty folder to see one" if name == "lab.yaml" else ""
            conf.problems.append(Problem(f"{path.name} cannot be read", file=f"conf/{name}", why=why, do=do))
    return out


def _check(conf: Conf, texts: dict[str, bytes]) -> Read | None:
    """Every head file can be read as a mapping; raises Problems with all that cannot. Returns lab.yaml's. Pure."""
    problems: list[Problem] = []
    lab = None
    for name, data in texts.items():
        file = f"conf/{name}"
        try:
            found = read(data, file)
        except Problems as e:
            problems += e.problems
            continue
        if name == "lab.yaml":
            lab = found
        if found.value is not None and not isinstance(found.value, dict):
            problems.append(Problem("the file is a list or a single value, not a mapping", file=file, line=1))
        elif isinstance(found.value, dict) and not isinstance(found.value.get("defaults", []), list):
            line, column = locate(conf.conf / name, ["defaults"])
            problems.append(Problem("`defaults` must be a list", file=file, line=line, column=column))
        elif found.value is None and name == "lab.yaml":
            problems.append(
                Problem("the file is empty", file=file, line=1, do="give it at least `lab:` with name and id")
            )
        elif name.startswith(("profile/", "stage/")) and not re.search(
            rb"^#\s*@package\s+_global_\s*$", data.splitlines()[0] if data else b""
        ):
            group = name.partition("/")[0]
            problems.append(
                Problem(
                    f"the {group}'s values would land under `{group}`",
                    file=file,
                    line=1,
                    do="make `# @package _global_` its first line",
                )
            )
    if problems or lab is None:
        raise Problems(*problems)
    return lab


def _compose(conf: Conf, lab: Read | None, asked: Sequence[str]) -> tuple[Head, frozenset[str]]:
    from lab.declare import compose

    operations = compose.parse(asked)
    kinds = set(known_kinds())
    groups = _default_groups(lab)
    for_head: list[str] = []
    problems: list[Problem] = []
    for op in operations:
        if op.top in kinds:
            continue
        fault = _unknown(conf, op, groups, lab)
        if fault:
            problems.append(fault)
        else:
            for_head.append(_addressed(op, groups, conf))
    if problems:
        raise Problems(*problems)
    try:
        found = compose.compose(conf.conf, "lab", for_head)
    except compose.Missing as e:
        raise Problems(_missing(conf, e.name, for_head)) from None
    resources = [op for op in operations if op.top in kinds]
    return Head(found.values, found.choices, resources), found.files


def _default_groups(lab: Read | None) -> set[str]:
    """The groups that lab.yaml's defaults list names. Pure."""
    out = set()
    for entry in (lab.value.get("defaults") or []) if lab and isinstance(lab.value, dict) else []:
        for group in entry if isinstance(entry, dict) else ():
            out.add(str(group).removeprefix("optional ").removeprefix("override ").partition("@")[0])
    return out


def _unknown(conf: Conf, op: Operation, groups: set[str], lab: Read | None) -> Problem | None:
    from lab.declare.settings import LabSettings, Settings

    fields = set(Settings.model_fields)
    own = set(lab.value) if lab and isinstance(lab.value, dict) else set()
    tops = {*fields, *groups, *own, *conf.groups, "hydra", *known_kinds()}
    if op.top not in tops:
        hint = did_you_mean(op.top, tops - {"hydra"})
        return Problem(f"`{op.text}`: there is no `{op.top}`{hint}", file=FILE, do="name a kind, or a key of the head")
    parts = op.key.split(".")
    if op.top == "lab" and len(parts) > 1 and parts[1] not in LabSettings.model_fields:
        hint = did_you_mean(parts[1], LabSettings.model_fields)
        return Problem(f"`{op.text}`: unknown key `{parts[1]}` in lab{hint}", file=FILE, do="mend the key")
    return None


def _addressed(op: Operation, groups: set[str], conf: Conf) -> str:
    """The override as Hydra must see it: known keys of the head may be set without `+`. Pure."""
    from lab.declare.settings import Settings

    if op.type != "change":
        return op.text
    if op.key in conf.groups or op.key in HEAD:
        return op.text if op.key in groups else f"+{op.text}"
    return f"++{op.text}" if (op.top in Settings.model_fields and "." in op.key) or op.key == "offline" else op.text


def _missing(conf: Conf, name: str, overrides: Sequence[str]) -> Problem:
    group, _, option = name.rpartition("/")
    known = [*conf.groups.get(group, []), *(["auto"] if group == "host" else [])]
    if not group:
        return Problem(f"{name}.yaml is not there", file="conf/lab.yaml", line=1, why="the defaults list names it")
    asked = next((o for o in overrides if o.lstrip("+").startswith(f"{group}=")), "")
    line, column = (0, 0) if asked else _entry(conf, group)
    return Problem(
        f"there is no {group} `{option}`{did_you_mean(option, known)}",
        file=FILE if asked else "conf/lab.yaml",
        line=line,
        column=column,
        why=f"conf/{group}/ has {', '.join(known) or 'no files'}",
        do=f"choose one of them, or make conf/{name}.yaml",
    )


def _entry(conf: Conf, group: str) -> tuple[int, int]:
    """Line and column of a group in lab.yaml's defaults list. Reads."""
    entries = read((conf.conf / "lab.yaml").read_bytes(), "conf/lab.yaml").value.get("defaults") or []
    for i, entry in enumerate(entries):
        for key in entry if isinstance(entry, dict) else ():
            if str(key).split()[-1].partition("@")[0] == group:
                return locate(conf.conf / "lab.yaml", ["defaults", i, key])
    return 1, 1


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    return all(map(_plain, value)) if isinstance(value, list) else True


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _loose(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")


def relative(conf: Conf, path: Path) -> str:
    """A file of the head as problems name it. Pure."""
    return f"conf/{path.relative_to(conf.conf).as_posix()}"
