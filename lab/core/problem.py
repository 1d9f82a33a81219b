"""Problem: what is wrong, where, why, and what to do; collected, never thrown one by one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from lab.core.masking import masked


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `summary` says it in one line; the rest helps to mend it."""

    summary: str
    file: str = ""
    line: int = 0
    column: int = 0
    why: str = ""
    do: str = ""
    address: str = ""

    @property
    def where(self) -> str:
        """`file:line:column`, as far as known."""
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)]) if self.file else ""

    def masked(self) -> Problem:
        """The same without any secret's value that this process has read."""
        return replace(self, summary=masked(self.summary), why=masked(self.why), do=masked(self.do))

    def to_json(self) -> dict[str, Any]:
        """Every field by name; empty ones included, so that readers need no defaults."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"{self.where}  {self.summary}" if self.file else self.summary
        parts = ((k, v) for k, v in (("why", self.why), ("do", self.do)) if v)
        more = [f"      {k:<4}" + v.replace("\n", "\n" + " " * 10) for k, v in parts]
        return "\n".join([head, *more])


class Problems(Exception):
    """One or more problems that stop what was asked; the command line prints them and exits with 1."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems


def problem(summary: str, *, why: str = "", do: str = "", file: str = "", line: int = 0, address: str = "") -> Problems:
    """One problem, ready to be raised."""
    return Problems(Problem(summary, file=file, line=line, why=why, do=do, address=address))


class Unknown(Exception):
    """An observation that could not be made (no permission, volume away, tool missing). It never means "absent"."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` — did you mean `x`?` for the nearest known word, else nothing. Pure.

    Of two words with the same beginning up to a dot, as two addresses of a kind have, only what follows is compared.
    """
    known = list(known)
    begin = word[: word.rfind(".") + 1]
    same = [k[len(begin) :] for k in known if k.startswith(begin)] if begin else []
    if near := difflib.get_close_matches(word[len(begin) :], same, 1, 0.6):
        return f" — did you mean `{begin}{near[0]}`?"
    near = difflib.get_close_matches(word, [k for k in known if not begin or not k.startswith(begin)], 1, 0.6)
    return f" — did you mean `{near[0]}`?" if near else ""


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold it: what came from bytes that are no text cannot. Pure."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
