"""The word `stage=NAME`, which may stand among the words of any verb: it says which stage of the lab is meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence

WORD = re.compile(r"(?:\+?stage=[\w.-]*|~stage)")


def taken(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The words that name a stage, and all others; what follows an option that takes a value is that value. Pure."""
    takes = {o for a in _actions(parser) if a.nargs != 0 for o in a.option_strings}
    found: list[str] = []
    rest: list[str] = []
    before = ""
    for n, word in enumerate(words):
        if word == "--":
            rest += words[n:]
            break
        if WORD.fullmatch(word) and before not in takes:
            found.append(word)
        else:
            rest.append(word)
        before = word
    return tuple(found), rest


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in dict.fromkeys(action.choices.values()):
                yield from _actions(inner)
