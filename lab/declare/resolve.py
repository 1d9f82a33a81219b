"""Resolve: interpolations. Absolute references and environment variables here, everything else by OmegaConf."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.core.problem import did_you_mean, encodable
from lab.declare.unresolved import Unresolved

_PATH = r"[A-Za-z_][\w-]*(?:\.[\w-]+)*"
_DEFAULT = r"(?:[A-Za-z_/][\w/.-]*|~[\w/.~-]*|'[^'\\$]*'|\"[^\"\\$]*\")?"
_SIMPLE = re.compile(rf"\$\{{({_PATH})\}}|\$\{{oc\.env:([A-Za-z_]\w*)(,{_DEFAULT})?\}}")
_NAMES = re.compile(r"([A-Za-z_][\w-]*)(?:\.([\w-]+))?")
_WORDS = frozenset(("null", "true", "false", "inf", "nan"))


class Resolver:
    """Resolves values of one tree: the head's keys and, under each kind, its resources."""

    def __init__(self, tree: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> None:
        self.tree = tree
        self.environ = os.environ if environ is None else environ
        self._known: dict[str, Any] = {}
        self._busy: list[str] = []

    def value(self, value: Any, at: tuple[Any, ...]) -> Any:
        """`value`, which stands at `at` in the tree, with all interpolations resolved; raises Unresolved. Reads."""
        if isinstance(value, str):
            return self._text(value, at)
        if isinstance(value, dict):
            return {k: self.value(v, (*at, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(v, (*at, i)) for i, v in enumerate(value)]
        return value

    def faults(self, value: Any, at: tuple[Any, ...]) -> Iterator[Unresolved]:
        """Every interpolation in `value` that stands for nothing, not only the first. Reads."""
        if isinstance(value, (dict, list)):
            for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from self.faults(inner, (*at, step))
            return
        try:
            self.value(value, at)
        except Unresolved as e:
            yield e

    def _text(self, text: str, at: tuple[Any, ...]) -> Any:
        if text == "???":
            raise Unresolved(f"`{at[-1]}` must be given a value: it is `???`", "fill it in", at)
        if "${" not in text:
            return text
        whole = _SIMPLE.fullmatch(text)
        if whole and self._is_simple(whole):
            return self._one(whole, at)
        found = list(_SIMPLE.finditer(text))
        if "\\" in text or text.count("${") != len(found) or not all(self._is_simple(m) for m in found):
            return self._omegaconf(text, at)
        parts = {m.start(): self._one(m, at) for m in found}
        if any(isinstance(v, (dict, list)) for v in parts.values()):
            return self._omegaconf(text, at)
        return _SIMPLE.sub(lambda m: str(parts[m.start()]), text)

    def _is_simple(self, match: re.Match[str]) -> bool:
        default = match[3]
        return not (default and default[1:].lower() in _WORDS)

    def _one(self, match: re.Match[str], at: tuple[Any, ...]) -> Any:
        if match[1]:
            return self._look(match[1], at)
        name, default = match[2], match[3]
        if name in self.environ:
            if not encodable(self.environ[name]):
                raise Unresolved(f"the environment variable {name} is not UTF-8 text", "set it in UTF-8", at)
            return self.environ[name]
        if default is None:
            raise Unresolved(
                f"the environment variable {name} is not set",
                f"set it, or give a default: ${{oc.env:{name},DEFAULT}}",
                at,
            )
        return default[1:].strip("'\"")

    def _look(self, path: str, at: tuple[Any, ...]) -> Any:
        if path in self._known:
            return self._known[path]
        if path in self._busy:
            raise Unresolved(
                f"`${{{path}}}` refers to itself: {' → '.join([*self._busy, path])}", "break the circle", at
            )
        self._busy.append(path)
        try:
            node: Any = self.tree
            parts = path.split(".")
            for i, part in enumerate(parts):
                if isinstance(node, list) and part.isdigit() and int(part) < len(node):
                    node = node[int(part)]
                elif isinstance(node, Mapping) and part in node:
                    node = node[part]
                else:
                    known = [str(k) for k in node] if isinstance(node, Mapping) else []
                    here = ".".join(parts[:i]) or "the lab"
                    hint = did_you_mean(part, known)
                    raise Unresolved(f"`${{{path}}}`: there is no `{part}` in {here}{hint}", "mend the reference", at)
            if node == "???":
                raise Unresolved(f"`${{{path}}}` has no value yet: it is `???`", "fill it in", at)
            value = self.value(node, tuple(parts))
        finally:
            self._busy.pop()
        self._known[path] = value
        return value

    def _omegaconf(self, text: str, at: tuple[Any, ...]) -> Any:
        from lab.declare.omega import evaluate

        return evaluate(self._around(text, at), text, at, dict(self.environ))

    def _around(self, text: str, at: Sequence[Any]) -> dict[str, Any]:
        """The part of the tree that `text` may refer to: the head, its own block, and every block that is named."""
        kinds = {k for k, v in self.tree.items() if isinstance(v, Blocks)}
        out: dict[str, Any] = {k: v for k, v in self.tree.items() if k not in kinds}
        todo: list[Any] = [text, *out.values()]
        if len(at) > 1 and at[0] in kinds:
            own = self.tree[at[0]].get(at[1])
            out[at[0]] = {at[1]: own}
            todo.append(own)
        while todo:
            value = todo.pop()
            if isinstance(value, Mapping):
                todo += value.values()
            elif isinstance(value, list):
                todo += value
            elif isinstance(value, str) and "${" in value:
                for kind, name in _NAMES.findall(value):
                    if kind not in kinds:
                        continue
                    blocks = self.tree[kind]
                    for n in [name] if name in blocks else list(blocks):
                        if n not in out.setdefault(kind, {}):
                            out[kind][n] = blocks[n]
                            todo.append(blocks[n])
        return out


class Blocks(dict[str, Any]):
    """The resources of a kind in a tree: name → block."""
