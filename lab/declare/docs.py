"""Docs: the reference page of each kind, made from its docstrings, and whether the pages on disk are current."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typing_extensions import is_typeddict

from lab import kinds
from lab.core.address import Address
from lab.core.block import meanings
from lab.core.host import Host
from lab.core.kind import Declaration, reference_kinds
from lab.core.secret import Secret
from lab.declare.conf import known_kinds
from lab.declare.settings import Settings

FOLDER = "docs/kinds"
NOTE = "<!-- Made from the docstrings by `lab docs --write`; change those. -->"
_BASE = frozenset(Declaration.model_fields)
_WORDS: Mapping[Any, str] = {
    str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value", Path: "path",
    Secret: "secret reference", Address: "address", NoneType: "nothing",
}  # fmt: skip


def pages() -> dict[str, str]:
    """File name → text of every reference page: one per kind, the head, the host, and an index. Pure."""
    out = {}
    lines = [
        "# Kinds",
        "",
        NOTE,
        "",
        "What a lab can hold. Every kind also takes the fields of [all kinds](all.md).",
        "",
    ]
    for kind in known_kinds():
        model = kinds.load(kind)
        if model is None:
            continue
        out[f"{kind}.md"] = page(model)
        lines.append(f"- [{kind}]({kind}.md): {_first(model)}")
    lines += ["", "Besides kinds: [the head](head.md) (`conf/lab.yaml` and profiles) and [hosts](host.md)."]
    out["all.md"] = _text("Fields of all kinds", "Fields that every kind takes.", [*_table(Declaration, Declaration)])
    out["head.md"] = _text("The head", _doc(Settings), [*_table(Settings), *_inner(Settings)])
    out["host.md"] = _text("Hosts", _doc(Host), [*_table(Host)])
    out["README.md"] = "\n".join(lines) + "\n"
    return out


def page(model: type[Declaration]) -> str:
    """The reference page of one kind. Pure."""
    own = [*_table(model, skip=_BASE), *_inner(model), "", *_facts(model)]
    return _text(model.kind, _doc(model), own)


def check(root: Path) -> list[str]:
    """The pages under `root` that are not as the docstrings say, missing and left over ones too. Reads."""
    wanted, folder = pages(), root / FOLDER
    stale = [n for n, t in wanted.items() if not (folder / n).is_file() or (folder / n).read_text("utf-8") != t]
    return sorted(stale + [p.name for p in folder.glob("*.md") if p.name not in wanted])


def write(root: Path) -> list[str]:
    """The pages under `root` are as the docstrings say; returns those that were changed."""
    stale, wanted = check(root), pages()
    for name in stale:
        path = root / FOLDER / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], "utf-8")
        else:
            path.unlink()
    return stale


def _text(title: str, doc: str, rest: list[str]) -> str:
    return "\n".join([f"# {title}", "", NOTE, "", doc, "", *rest]).rstrip() + "\n"


def _doc(model: type) -> str:
    """A docstring as Markdown: its indented lines become a block of YAML. Pure."""
    out: list[str] = []
    code = False
    for line in inspect.cleandoc(model.__doc__ or "").splitlines():
        indented = line.startswith("    ")
        if indented and not code:
            out.append("```yaml")
        elif code and line and not indented:
            out.insert(len(out) - 1 if out[-1] == "" else len(out), "```")
        if line:
            code = indented
        out.append(line[4:] if indented else line)
    return "\n".join([*out, "```"] if code else out)


def _first(model: type) -> str:
    return inspect.cleandoc(model.__doc__ or "").partition("\n")[0]


def _table(
    model: type[BaseModel], of: type[Declaration] | None = None, *, skip: frozenset[str] = frozenset()
) -> Iterator[str]:
    yield "| field | takes | default | |"
    yield "|---|---|---|---|"
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        refers = reference_kinds(model, name) if issubclass(model, Declaration) else ()
        takes = _takes(info.annotation, refers)
        default = "required" if info.is_required() else _default(info.get_default(call_default_factory=True))
        meaning = " ".join((info.description or meanings(model).get(name, "")).split()).replace("|", "\\|")
        yield f"| `{info.alias or name}` | {takes} | {default} | {meaning} |"


def _inner(model: type[BaseModel]) -> Iterator[str]:
    """Tables of the models that fields hold. Pure."""
    seen: list[type[BaseModel]] = []

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in seen:
                seen.append(annotation)
                for info in annotation.model_fields.values():
                    walk(info.annotation)
            return
        for arg in get_args(annotation):
            walk(arg)

    for name, info in model.model_fields.items():
        if name not in _BASE:
            walk(info.annotation)
    for found in seen:
        yield from ["", f"## {found.__name__}", "", _doc(found), "", *_table(found)]


def _facts(model: type[Declaration]) -> Iterator[str]:
    if "*" in model.fixed:
        yield "Any change replaces it."
    elif model.fixed:
        yield f"A change of {_list(model.fixed)} replaces it; other changes update it."
    if model.derived:
        yield "It is made from others by work: it is adopted only on proven provenance."
    if model.reruns:
        yield "A change is called a rerun."
    if model.holds_data:
        yield "Destroying it may lose a person's data: where it has drifted, destroying asks by name."
    extra = model.aside - Declaration.aside
    if extra:
        yield f"Fields that do not enter its digest: {_list(extra)}."
    if model.pinned:
        yield f"Versions, which `lab promote` takes from one stage to another: {_list(model.pinned)}."


def _list(names: frozenset[str]) -> str:
    return ", ".join(f"`{n}`" for n in sorted(names))


def _takes(annotation: Any, refers: tuple[str, ...] = ()) -> str:
    """A type in words. Pure."""
    if annotation in _WORDS and not (annotation is Address and refers):
        return _WORDS[annotation]
    if annotation is Address:
        return f"name of a {' or '.join(refers)}"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(args[0], refers)
    if origin is Literal:
        return " or ".join("empty" if a == "" else f"`{a}`" for a in args)
    if origin in (tuple, list, set, frozenset):
        return f"list of {_takes(args[0], refers)}" if args else "list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if is_typeddict(annotation):
        return f"mapping of {', '.join(f'`{key}`' for key in annotation.__annotations__)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping to {_takes(args[1], refers)}" if args else "mapping"
    if args:
        parts = [_takes(a, refers) for a in args if a is not NoneType]
        return " or ".join(dict.fromkeys(parts))
    return getattr(annotation, "__name__", str(annotation)).lower()


def _default(value: Any) -> str:
    if value is PydanticUndefined or value is None or value in ("", (), {}, []):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, BaseModel):
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    found = (check if "--check" in sys.argv else write)(Path.cwd())
    print("\n".join(f"{FOLDER}/{n}" for n in found) or "All pages are current.")
    sys.exit(1 if found and "--check" in sys.argv else 0)
