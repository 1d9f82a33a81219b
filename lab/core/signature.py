"""Signature: what a Python function takes, read from its source without running it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from lab.core.problem import did_you_mean

GIVEN = ("seed", "models", "datasets", "outputs", "checkpoints", "resumed", "config", "run")
"""Names a run gives a function besides its parameters; the same as `lab.sdk.call.GIVEN`."""
_PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def complaints(text: str, file: str, function: str, params: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with calling `function` of a module's `text` with `params`, as far as its source tells. Pure."""
    try:
        body = ast.parse(text).body
    except SyntaxError as e:
        yield f"{file}:{e.lineno} is no Python: {e.msg}"
        return
    functions = {n.name: n for n in body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
    found = functions.get(function)
    if found is None:
        named = {n.id for n in ast.walk(ast.Module(body, [])) if isinstance(n, ast.Name)}
        classes = {n.name for n in body if isinstance(n, ast.ClassDef)}
        imported = {a.asname or a.name for n in body if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
        if function.partition(".")[0] not in named | classes | imported:
            yield f"{file} has no function {function}{did_you_mean(function, functions)}"
        return
    arguments = [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]
    plain = [*found.args.posonlyargs, *found.args.args]
    optional = {a.arg for a in plain[len(plain) - len(found.args.defaults) :]}
    optional |= {a.arg for a, d in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True) if d is not None}
    names = {a.arg: a.annotation for a in arguments}
    for name, value in params.items():
        if name not in names:
            if found.args.kwarg is None:
                yield f"{function} takes no parameter {name}{did_you_mean(name, set(names) - set(GIVEN))}"
            continue
        if wrong := _wrong(names[name], value):
            yield f"{function} takes {name} as {wrong}, not {value!r}"
    for name in names:
        if name not in params and name not in optional and name not in GIVEN:
            yield f"{function} needs a parameter {name}"


def parameters(text: str, function: str) -> tuple[str, ...]:
    """What a function of a module takes besides what a run gives it; nothing where it is not there. Pure."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return ()
    for n in body:
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) and n.name == function:
            every = (*n.args.posonlyargs, *n.args.args, *n.args.kwonlyargs)
            return tuple(a.arg for a in every if a.arg not in GIVEN)
    return ()


@lru_cache
def imports(text: str, module: str = "") -> tuple[str, ...]:
    """The modules that a module's `text` imports, relative ones by the name of their package. Pure."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ()
    found: dict[str, None] = {}
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found.update({a.name: None for a in node.names})
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *([node.module] if node.module else [])])
            if base:
                found[base] = None
                found.update({f"{base}.{a.name}": None for a in node.names})
    return tuple(found)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a module, function or block, at any depth; no expression holds an import."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for each in getattr(node, field, ()):
            yield each
            yield from _statements(each)


def _wrong(annotation: ast.expr | None, value: Any) -> str:
    if isinstance(annotation, ast.Name) and annotation.id in _PLAIN:
        whole = annotation.id == "int" and isinstance(value, float) and value.is_integer()
        right = isinstance(value, _PLAIN[annotation.id]) and (annotation.id == "bool") == isinstance(value, bool)
        return "" if right or whole else annotation.id
    return ""


def file(module: str, folders: Iterable[str], there: Callable[[str], bool]) -> str:
    """The file of a module below one of these folders, the first that is there; empty where none is. Reads."""
    relative = module.replace(".", "/")
    for base in folders:
        start = "" if base == "." else f"{base.removesuffix('/')}/"
        for name in (f"{start}{relative}.py", f"{start}{relative}/__init__.py"):
            if there(name):
                return name
    return ""
