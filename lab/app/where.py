"""Where: a filter such as `params>1e6 and format==gguf`, read once and asked of each row. Pure."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lab.core.problem import did_you_mean, problem
from lab.core.units import parse_size

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

_TOKEN = re.compile(r"""\s*(?:(?P<word>[\w.*?/:+-]+)|(?P<text>"[^"]*"|'[^']*')|(?P<mark>==|!=|>=|<=|=|<|>|~|\(|\)))""")
_ORDER = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def where(text: str, fields: Iterable[str], sizes: Iterable[str] = ()) -> Test:
    """The test that a filter stands for; raises Problems where it is none.

    `FIELD OP VALUE` with == != > >= < <= and ~ (a glob), joined by `and`, `or`, `not` and parentheses. Counts take K,
    M, B and T (`13B`), the fields in `sizes` units of bytes (`4GB`). A field alone asks whether it is true.
    """
    if not text.strip():
        return lambda row: True
    return _Parser(text, tuple(fields), frozenset(sizes)).parse()


class _Parser:
    def __init__(self, text: str, fields: tuple[str, ...], sizes: frozenset[str]) -> None:
        self.text, self.fields, self.sizes, self.at = text, fields, sizes, 0
        self.tokens: list[str] = []
        position = 0
        while text[position:].strip():
            m = _TOKEN.match(text, position)
            if m is None:
                raise self.wrong(f"`{text[position:].strip()[:20]}` is not understood")
            self.tokens.append(m[m.lastgroup or "word"])
            position = m.end()

    def wrong(self, why: str) -> Exception:
        return problem(
            f"the filter `{self.text}` cannot be read", why=why, do='write for example "params>1e9 and format==gguf"'
        )

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else ""

    def parse(self) -> Test:
        test = self.any_()
        if self.peek():
            raise self.wrong(f"`{self.peek()}` is one too many")
        return test

    def any_(self) -> Test:
        tests = [self.all_()]
        while self.peek().lower() == "or":
            self.take()
            tests.append(self.all_())
        return lambda row: any(t(row) for t in tests)

    def all_(self) -> Test:
        tests = [self.one()]
        while self.peek().lower() == "and":
            self.take()
            tests.append(self.one())
        return lambda row: all(t(row) for t in tests)

    def one(self) -> Test:
        token = self.take()
        if token.lower() == "not":
            test = self.one()
            return lambda row: not test(row)
        if token == "(":
            test = self.any_()
            if self.take() != ")":
                raise self.wrong("a parenthesis is not closed")
            return test
        if token not in self.fields:
            raise self.wrong(
                f"there is no field `{token}`{did_you_mean(token, self.fields)}; there are {', '.join(self.fields)}"
            )
        if self.peek() not in ("==", "=", "!=", "~", *_ORDER):
            return lambda row: bool(row.get(token))
        return self.compare(token, self.take(), self.take())

    def compare(self, field: str, mark: str, value: str) -> Test:
        if not value or value in "()":
            raise self.wrong(f"`{field} {mark}` lacks a value")
        value = value.strip("\"'")
        if mark in _ORDER:
            number = self.number(field, value)
            order = _ORDER[mark]
            return lambda row: isinstance(n := row.get(field), (int, float)) and bool(order(n, number))
        if mark == "~":
            return lambda row: fnmatch.fnmatchcase(str(row.get(field) or "").lower(), value.lower())

        def equal(row: Row) -> bool:
            found = row.get(field)
            if isinstance(found, bool) or found is None:
                return str(bool(found)).lower() == value.lower()
            if isinstance(found, (int, float)):
                return bool(found == self.number(field, value))
            return str(found).lower() == value.lower()

        return equal if mark in ("=", "==") else lambda row: not equal(row)

    def number(self, field: str, value: str) -> float:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            if field in self.sizes:
                return parse_size(value)
            m = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)([kmbt]?)", value.lower())
            return float(m[1]) * _COUNTS[m[2]] if m else float(value)
        except ValueError:
            raise self.wrong(f"`{value}` is no number") from None
