"""Marks: the line of a field in a conf file; read again only when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.declare.read import Loader, bounded


def locate(path: Path, fields: Sequence[Any], *, key: bool = False) -> tuple[int, int]:
    """Line and column of the value at `fields` (of its key, with `key`), as far as the file has it. Reads.

    Steps of `fields` that the file does not have are skipped; (1, 1) where nothing can be found.
    """
    try:
        data = path.read_bytes()
        node = yaml.compose(data.decode(), Loader=Loader) if bounded(data) else None
    except (OSError, ValueError, yaml.YAMLError):
        return 1, 1
    if node is None:
        return 1, 1
    mark = node.start_mark
    for step in fields:
        found = _child(node, step)
        if found is None:
            continue
        key_node, node = found
        by_key = key_node is not None and (key or _elsewhere(key_node, node))
        mark = (key_node if by_key else node).start_mark
    return mark.line + 1, mark.column + 1


def _child(node: Any, step: Any) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
        return None, node.value[step]
    return None


def _elsewhere(key: Any, value: Any) -> bool:
    """Whether a value begins on another line than its key (a block, or an alias): the key's line says more."""
    return bool(value.start_mark.line != key.start_mark.line)
