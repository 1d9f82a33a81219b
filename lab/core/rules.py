"""Rules: arithmetic comparisons over names, written in YAML and read without running anything."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "log": math.log,
    "log2": math.log2,
    "sqrt": math.sqrt,
}
_COMPARISONS = (ast.LtE, ast.Lt, ast.GtE, ast.Gt, ast.Eq)


class Rule:
    """`width * layers <= 4096`: one comparison of two sides of numbers, dotted names, + - * / // % and a few functions.

    Raises ValueError where the text is something else.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            body = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError):
            raise ValueError(f"`{text}` is no comparison such as `width * layers <= 4096`") from None
        if not isinstance(body, ast.Compare) or len(body.ops) != 1 or not isinstance(body.ops[0], _COMPARISONS):
            raise ValueError(f"`{text}` must compare two sides once, with <=, <, >=, > or ==")
        self._left, self._right, self._how = body.left, body.comparators[0], body.ops[0]
        self.names: frozenset[str] = frozenset(_names(body, text))

    def excess(self, values: Mapping[str, Any]) -> float:
        """How far the rule is broken: at most 0 where it holds. Raises KeyError for a name without a value. Pure."""
        left, right = _value(self._left, values), _value(self._right, values)
        if isinstance(self._how, ast.Eq):
            return float(abs(left - right))
        difference = float(left - right if isinstance(self._how, (ast.LtE, ast.Lt)) else right - left)
        strict = isinstance(self._how, (ast.Lt, ast.Gt))
        return math.ulp(1.0) if strict and difference == 0 else difference


def _names(node: ast.AST, text: str) -> set[str]:
    if isinstance(node, (ast.Name, ast.Attribute)):
        return {_dotted(node, text)}
    if isinstance(node, ast.Constant):
        if isinstance(node.value, (int, float)):
            return set()
        raise ValueError(f"`{text}`: {node.value!r} is no number")
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords:
            raise ValueError(f"`{text}`: only {', '.join(_FUNCTIONS)} may be called")
        return set().union(*(_names(a, text) for a in node.args)) if node.args else set()
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _names(node.left, text) | _names(node.right, text)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _names(node.operand, text)
    if isinstance(node, ast.Compare):
        return _names(node.left, text) | _names(node.comparators[0], text)
    raise ValueError(f"`{text}`: only numbers, names, + - * / // % and {', '.join(_FUNCTIONS)} may stand in a rule")


def _dotted(node: ast.AST, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, text)}.{node.attr}"
    raise ValueError(f"`{text}`: write a name as a.b.c")


def _value(node: ast.AST, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_value(node.operand, values))
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return _FUNCTIONS[node.func.id](*(_value(a, values) for a in node.args))
    return values[_dotted(node, "")]
