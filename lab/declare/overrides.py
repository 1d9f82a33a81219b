"""Overrides: Hydra's operations on plain data, with Hydra's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.core.problem import Problem, did_you_mean

FILE = "command line"


@dataclass(frozen=True, slots=True)
class Operation:
    """One override: `change` (key=value), `add` (+), `force_add` (++) or `del` (~), and where it points."""

    text: str
    type: str
    key: str
    package: str | None
    value: Any

    @property
    def top(self) -> str:
        """The first part of its key: a kind, or a key or group of the head."""
        return re.split(r"[./]", self.key, maxsplit=1)[0]


class Refused(Exception):
    """An override that does not fit what it is applied to."""

    def __init__(self, summary: str, do: str = "") -> None:
        super().__init__(summary)
        self.summary, self.do = summary, do


def apply(
    operations: list[Operation], blocks: dict[str, dict[str, Any]], fields: Mapping[str, frozenset[str]]
) -> list[Problem]:
    """Changes `blocks` (kind → name → block) in place, in order; what does not fit comes back as problems.

    `fields` are the fields each kind knows: those may be set without `+` even where the file leaves them out.
    """
    problems = []
    for operation in operations:
        try:
            _apply(operation, blocks, fields)
        except Refused as e:
            problems.append(Problem(e.summary, file=FILE, do=e.do, why=f"the override is `{operation.text}`"))
    return problems


def _apply(op: Operation, blocks: dict[str, dict[str, Any]], fields: Mapping[str, frozenset[str]]) -> None:
    kind, _, rest = op.key.partition(".")
    if op.package is not None or "/" in op.key or (not rest and op.type != "del"):
        raise Refused(f"`{kind}` is a kind, not a group", f"select resources with resources.{kind}=[name, …]")
    of_kind = blocks.setdefault(kind, {})
    if not rest:
        of_kind.clear()
        return
    name, path = _split(rest, of_kind)
    if op.type == "del":
        _delete(op, of_kind, name, path)
        return
    if name not in of_kind:
        if op.type == "change" or (path and op.type == "add" and name not in of_kind):
            if op.type == "add" and path:
                of_kind[name] = {}
            else:
                hint = did_you_mean(name, of_kind)
                raise Refused(f"{kind}.{name} is not declared{hint}", f"declare it with +{kind}.{name}={{…}}")
        else:
            of_kind[name] = {}
    if not path:
        if not isinstance(op.value, dict):
            raise Refused(f"{kind}.{name} is a resource and takes a mapping", f"+{kind}.{name}={{field: value}}")
        of_kind[name] = _merge(of_kind[name], op.value, op, op.type != "change", f"{kind}.{name}", fields.get(kind))
        return
    if op.type == "change" and path[0] not in of_kind[name] and path[0] not in fields.get(kind, frozenset()):
        hint = did_you_mean(path[0], {*of_kind[name], *fields.get(kind, ())})
        raise Refused(f"unknown key `{path[0]}` in {kind}.{name}{hint}", "mend the key")
    _set(of_kind[name], path, op, f"{kind}.{name}")


def _split(rest: str, of_kind: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The longest declared name that `rest` begins with, and the path after it."""
    parts = rest.split(".")
    for n in range(len(parts), 0, -1):
        name = ".".join(parts[:n])
        if name in of_kind:
            return name, parts[n:]
    return parts[0], parts[1:]


def _set(block: Any, path: list[str], op: Operation, where: str) -> None:
    *parents, last = path
    node = block
    for depth, part in enumerate(parents):
        here = f"{where}.{'.'.join(path[:depth])}" if depth else where
        if isinstance(node, list):
            node = node[_index(node, part, here)]
            continue
        if not isinstance(node, dict):
            raise Refused(f"{here} is a single value and has no `{part}`", "set the whole value")
        child = node.get(part)
        if not isinstance(child, (dict, list)):
            if op.type == "change" and depth:
                raise Refused(f"there is no `{part}` in {here}", f"add it with +{op.text}")
            child = node[part] = {}
        node = child
    here = ".".join([where, *parents])
    if isinstance(node, list):
        node[_index(node, last, here)] = op.value
        return
    if not isinstance(node, dict):
        raise Refused(f"{here} is a single value and has no `{last}`", "set the whole value")
    exists = last in node
    if op.type == "add" and node.get(last) is not None and not isinstance(op.value, (dict, list)):
        raise Refused(f"{here}.{last} is already there", f"write {op.text[1:]} to change it")
    if op.type == "change" and not exists and parents:
        hint = did_you_mean(last, node)
        raise Refused(f"there is no `{last}` in {here}{hint}", f"add it with +{op.text}")
    _same_shape(node.get(last), op.value, f"{here}.{last}")
    if isinstance(node.get(last), dict) and isinstance(op.value, dict):
        node[last] = _merge(node[last], op.value, op, op.type != "change", f"{here}.{last}", None)
    else:
        node[last] = op.value


def _merge(
    old: Any, new: Mapping[str, Any], op: Operation, add: bool, where: str, fields: frozenset[str] | None
) -> dict[str, Any]:
    out = dict(old)
    for key, value in new.items():
        if key not in out and not add and key not in (fields or ()):
            hint = did_you_mean(str(key), {*map(str, out), *(fields or ())})
            raise Refused(f"there is no `{key}` in {where}{hint}", f"add it with +{op.text}")
        _same_shape(out.get(key), value, f"{where}.{key}")
        if isinstance(out.get(key), dict) and isinstance(value, dict):
            out[key] = _merge(out[key], value, op, add, f"{where}.{key}", None)
        else:
            out[key] = value
    return out


def _same_shape(old: Any, new: Any, where: str) -> None:
    """A list is not replaced by a mapping, nor a mapping by a list: Hydra merges containers, and these do not merge."""
    if isinstance(old, dict) and isinstance(new, list):
        raise Refused(f"{where} is a mapping, and a list cannot be merged into it", f"remove it first: ~{where}")
    if isinstance(old, list) and isinstance(new, dict):
        raise Refused(f"{where} is a list, and a mapping cannot be merged into it", f"remove it first: ~{where}")


def _delete(op: Operation, of_kind: dict[str, Any], name: str, path: list[str]) -> None:
    where = f"{op.top}.{name}"
    if name not in of_kind:
        raise Refused(f"{where} is not declared{did_you_mean(name, of_kind)}", "there is nothing to remove")
    node: Any = of_kind
    for part in (steps := [name, *path])[:-1]:
        node = node[_index(node, part, where)] if isinstance(node, list) else _child(node, part, where)
    last: Any = _index(node, steps[-1], where) if isinstance(node, list) else steps[-1]
    found = _child(node, last, where) if isinstance(node, dict) else node[last]
    if op.value is not None and found != op.value:
        raise Refused(f"{op.key} is not {op.value!r}", f"remove it whatever it is with ~{op.key}")
    del node[last]


def _child(node: Any, part: str, where: str) -> Any:
    if not isinstance(node, dict) or node.get(part) is None:
        known = node if isinstance(node, dict) else ()
        raise Refused(f"there is no `{part}` in {where}{did_you_mean(part, map(str, known))}", "mend the key")
    return node[part]


def _index(node: list[Any], part: str, where: str) -> int:
    if part.isdigit() and int(part) < len(node):
        return int(part)
    raise Refused(f"{where} is a list of {len(node)} and has no `{part}`", "count from 0")


def overlay(low: Any, high: Any) -> Any:
    """`high` merged over `low` as Hydra merges configs: mappings key by key, anything else replaced. Pure."""
    if not isinstance(low, dict) or not isinstance(high, dict):
        return high
    out = dict(low)
    for key, value in high.items():
        out[key] = overlay(out[key], value) if key in out else value
    return out
