"""Read: the text of a conf file as plain values, exactly as OmegaConf reads YAML, at the speed of libyaml."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

from lab.core.problem import Problem, Problems

LIMIT = 8 << 20
"""Largest conf file, in bytes."""
NODES = 200_000
"""Most values one file may hold once its aliases are followed."""
DEPTH = 100
"""Deepest nesting."""

_STR = "tag:yaml.org,2002:str"
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_MAP, _SEQ, _MERGE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:merge"
_OMEGACONF_FLOAT = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NESTING = re.compile(rb"[\[{]|[-?] |^ {100}", re.M)


class Loader(_BASE):  # type: ignore[misc]
    """libyaml's parser with OmegaConf's implicit types: `1e-5` is a float and `2026-12-31` a string."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            for tag, expression in self.yaml_implicit_resolvers.get(value[:1], ()):
                if expression.match(value):
                    return tag
            return _STR
        return super().resolve(kind, value, implicit)


Loader.add_implicit_resolver(_FLOAT, _OMEGACONF_FLOAT, list("-+0123456789."))
Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in Loader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Read:
    """What a file holds: its value, and what still has to happen to it."""

    value: Any
    interpolated: bool
    """Whether a text in it has `${…}` or `???`."""
    plain: bool
    """Whether every key is text, so that JSON can hold it."""
    hydra: bool
    """Whether it has a `defaults:` list or a `# @package` header, which only Hydra understands."""


class Broken(Exception):
    """A value that cannot be read, with the node that holds it."""

    def __init__(self, summary: str, node: Any, do: str = "") -> None:
        super().__init__(summary)
        self.summary, self.node, self.do = summary, node, do


def read(data: bytes, file: str) -> Read:
    """`data` as plain values; raises Problems that name `file` and a line where it cannot be read. Pure."""
    text = decode(data, file)
    if not bounded(data):
        raise Problems(Problem(f"values are nested more than {DEPTH} deep", file=file, line=1, do="write it flatter"))
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Read(None, False, True, False)
        builder = Builder(loader)
        value = builder.build(node, 0)
    except yaml.MarkedYAMLError as e:
        raise Problems(_syntax(e, text, file)) from None
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise Problems(
            Problem("a control character stands in the file", file=file, line=line, do="remove it, or escape it")
        ) from None
    except Broken as e:
        mark = e.node.start_mark
        raise Problems(Problem(e.summary, file=file, line=mark.line + 1, column=mark.column + 1, do=e.do)) from None
    finally:
        loader.dispose()
    return Read(value, "${" in text or "???" in text, builder.plain, _needs_hydra(value, text))


def decode(data: bytes, file: str) -> str:
    """`data` as UTF-8 text; raises Problems otherwise. Pure."""
    if len(data) > LIMIT:
        raise Problems(Problem(f"the file is larger than {LIMIT >> 20} MiB", file=file, line=1, do="split it"))
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        why = f"byte {e.start + 1} is 0x{data[e.start]:02x}"
        raise Problems(
            Problem("the file is not UTF-8 text", file=file, line=line, why=why, do="save it as UTF-8")
        ) from None


def bounded(data: bytes) -> bool:
    """Whether nesting stays within DEPTH: libyaml composes recursively and would overflow the stack. Pure."""
    if len(data) <= DEPTH or len(_NESTING.findall(data)) <= DEPTH // 2:
        return True
    depth = 0
    try:
        for event in yaml.parse(data, Loader=_BASE):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEPTH:
                    return False
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        return True
    return True


class Builder:
    """Builds plain values from nodes, following aliases no further than NODES values."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.count = 0
        self.plain = True

    def build(self, node: Any, depth: int) -> Any:
        """The value of a node; raises Broken. Every visit counts, so that aliases cannot multiply."""
        self.count += 1
        if self.count > NODES or depth > DEPTH:
            raise Broken("aliases multiply the values of this file", node, "write the values out, or fewer of them")
        tag = node.tag
        if tag == _STR and isinstance(node, yaml.ScalarNode):
            if "\0" in node.value:
                raise Broken("a text holds a NUL character", node, "leave it out: no path, word or file may have one")
            return node.value
        if tag == _MAP and isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if tag == _SEQ and isinstance(node, yaml.SequenceNode):
            return [self.build(child, depth + 1) for child in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, tag)
        raise Broken(f"the tag `{_short(tag)}` is not for plain values", node, "remove the tag")

    def _scalar(self, node: Any, tag: str) -> Any:
        try:
            if tag == _INT:
                return self.loader.construct_yaml_int(node)
            if tag == _FLOAT:
                return self.loader.construct_yaml_float(node)
            if tag == _BOOL:
                return self.loader.construct_yaml_bool(node)
        except (ValueError, KeyError, IndexError, OverflowError):
            raise Broken("this number or truth value cannot be read", node, "quote it if it is text") from None
        if tag == _NULL:
            return None
        if tag == "tag:yaml.org,2002:value":
            return node.value
        raise Broken(f"the tag `{_short(tag)}` is not for plain values", node, "remove the tag")

    def _mapping(self, node: Any, depth: int) -> dict[Any, Any]:
        out: dict[Any, Any] = {}
        merged: list[dict[Any, Any]] = []
        for key_node, value_node in node.value:
            if key_node.tag == _STR and isinstance(key_node, yaml.ScalarNode):
                key: Any = key_node.value
            elif key_node.tag == _MERGE:
                merged += self._merged(value_node, depth)
                continue
            else:
                key = self.build(key_node, depth + 1)
                self.plain = False
                if not isinstance(key, Hashable) or key is None:
                    raise Broken("a key must be a word or a number", key_node, "quote it")
            if key in out:
                raise Broken(f"the key `{key}` is given twice", key_node, "keep one of them")
            out[key] = self.build(value_node, depth + 1)
        if not merged:
            return out
        base: dict[Any, Any] = {}
        for block in merged:
            base.update(block)
        base.update(out)
        return base

    def _merged(self, node: Any, depth: int) -> list[dict[Any, Any]]:
        nodes = [node] if isinstance(node, yaml.MappingNode) else node.value
        if isinstance(node, yaml.ScalarNode) or not all(isinstance(n, yaml.MappingNode) for n in nodes):
            raise Broken("`<<` takes a mapping or a list of mappings", node, "name an anchor of a mapping")
        return [self._mapping(n, depth + 1) for n in reversed(nodes)]


def _needs_hydra(value: Any, text: str) -> bool:
    if isinstance(value, dict) and isinstance(value.get("defaults"), list):
        return True
    if not text.startswith(("#", " ", "\n")):
        return False
    for line in text[:512].splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            return False
        if re.match(r"#\s*@package\b", stripped):
            return True
    return False


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


_WORDS = (
    ("mapping values are not allowed", "a `:` stands where none is allowed", "quote the text, or mend the indentation"),
    ("cannot start any token", "a character that YAML reserves starts a value", "quote the value"),
    ("found undefined alias", "an alias names an anchor that is not there", "define the anchor before its alias"),
    ("found duplicate anchor", "an anchor is defined twice", "rename one"),
    ("expected a single document", "the file holds more than one document", "keep one; remove the `---` line"),
    ("unexpected end of stream", "a quote or bracket is not closed", "close it"),
    ("could not find expected ':'", "a `:` is missing after a key", "add it, or quote the text"),
    ("did not find expected ',' or", "a bracket is not closed, or a comma is missing", "close it"),
    ("did not find expected key", "the indentation does not fit", "align it with the keys beside it"),
    ("did not find expected '-'", "the indentation of a list does not fit", "align its dashes"),
    ("expected <block end>", "the indentation does not fit", "align it with what stands beside it"),
    ("block sequence entries are not allowed", "a `-` stands where none is allowed", "put the list on its own lines"),
    (
        "unknown escape character",
        "an unknown escape stands in double quotes",
        "use single quotes, or double the backslash",
    ),
    ("control characters", "a control character stands in the file", "remove it"),
)


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 0)
    lines = text.splitlines()
    for number in {line, line - 1}:
        if 0 < number <= len(lines) and re.match(r" *\t", lines[number - 1]):
            return Problem("a tab is used as indentation", file=file, line=number, column=1, do="use spaces")
    if mark and lines[line - 1 : line] and "\t" in lines[line - 1][column - 1 : column]:
        return Problem("a tab stands where a value starts", file=file, line=line, column=column, do="use spaces")
    said = " ".join(filter(None, (error.problem, error.context)))
    for words, summary, do in _WORDS:
        if words in said:
            return Problem(summary, file=file, line=line, column=column, do=do)
    return Problem(
        "this is not valid YAML", file=file, line=line, column=column, why=said, do="compare it with its neighbours"
    )
