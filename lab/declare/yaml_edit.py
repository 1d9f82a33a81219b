"""Edit: values in a YAML text are changed where they stand; comments, order and spelling of all else stay. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lab.core.problem import problem
from lab.declare.read import read


def edit(text: str, values: Mapping[str, Any], file: str) -> str:
    """`text` with each dotted name set to its value, a scalar or a list of them; mappings that are missing are made.

    Raises Problems where the file is no mapping, or a name leads through something that cannot hold it.
    """
    for name, value in values.items():
        text = _set(text, name.split("."), value, file)
    return text


def assign(text: str, path: Sequence[str], value: Any, file: str) -> str:
    """The same for one value, whose name's parts may hold dots."""
    return _set(text, list(path), value, file)


def _set(text: str, path: list[str], value: Any, file: str) -> str:
    node = yaml.compose(text, Loader=yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader)
    if node is None:
        return text + _block(path, value, 0)
    for depth, part in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise _cannot(file, ".".join(path[:depth]), getattr(node, "start_mark", None))
        found = next((v for k, v in node.value if k.value == part), None)
        if found is None:
            return _insert(text, node, path[depth:], value)
        node = found
    listed = isinstance(node, yaml.SequenceNode) and node.flow_style and isinstance(value, list)
    if not (listed or isinstance(node, yaml.ScalarNode)):
        raise _cannot(file, ".".join(path), node.start_mark)
    start, end = node.start_mark.index, node.end_mark.index
    old = text[start:end]
    if old.startswith(("&", "*", "!")) or "\n" in old or "${" in old or (listed and set(old) & set("&*!")):
        raise _cannot(file, ".".join(path), node.start_mark)
    if _same(old, value):
        return text
    gap = "" if start == 0 or text[start - 1] in " \t" or old else " "
    return f"{text[:start]}{gap}{scalar(value)}{text[end:]}"


def _same(old: str, value: Any) -> bool:
    found = read(f"x: {old}\n".encode(), "").value["x"] if old else None
    return type(found) is type(value) and repr(found) == repr(value)


def _insert(text: str, node: Any, path: list[str], value: Any) -> str:
    """A new key at the end of a mapping, in its own style."""
    if node.flow_style:
        end = text.rindex("}", 0, node.end_mark.index)
        inner = scalar(value)
        for part in reversed(path[1:]):
            inner = f"{{{part}: {inner}}}"
        comma = ", " if node.value else ""
        before = text[:end].rstrip(" ") if node.value else text[:end]
        return f"{before}{comma}{path[0]}: {inner}{text[end:]}"
    last = node.value[-1][1]
    at = last.end_mark.index
    line = text.find("\n", _content_end(text, at))
    indent = node.value[0][0].start_mark.column
    if line < 0:
        return f"{text}\n{_block(path, value, indent)}"
    return f"{text[: line + 1]}{_block(path, value, indent)}{text[line + 1 :]}"


def _content_end(text: str, at: int) -> int:
    """The end of what stands before `at`: a block's end mark lies after the blank lines and comments that follow it."""
    before = text[:at]
    lines = before.split("\n")
    while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return len("\n".join(lines))


def _block(path: list[str], value: Any, indent: int) -> str:
    out = ""
    for depth, part in enumerate(path[:-1]):
        out += f"{' ' * (indent + 2 * depth)}{part}:\n"
    return f"{out}{' ' * (indent + 2 * (len(path) - 1))}{path[-1]}: {scalar(value)}\n"


def scalar(value: Any) -> str:
    """A scalar, or a list in a line, as YAML, read back as the same value by YAML 1.1 and by OmegaConf. Pure."""
    if isinstance(value, list):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        text = repr(value)
        mantissa, e, exponent = text.partition("e")
        if e and "." not in mantissa:
            mantissa += ".0"
        return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}" if e else text
    if isinstance(value, int):
        return str(value)
    text = str(value)
    plain = yaml.safe_dump(text, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
    back = read(f"x: {plain}\n".encode(), "").value["x"]
    return plain if back == text and not set(plain) & set(",[]{}") - set("'\"") else _quoted(text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'" if "\n" not in text else yaml.safe_dump(text, default_style='"').strip()


def _cannot(file: str, name: str, mark: Any) -> Any:
    line = mark.line + 1 if mark is not None else 0
    return problem(
        f"{name} cannot be changed where it stands",
        file=file,
        line=line,
        why="it is neither a plain value nor a list in one line there",
        do="edit it by hand",
    )
