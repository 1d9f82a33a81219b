"""integrations: the tools that Lab joins, which of them are here, and which were tried by tests, when."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata

from lab.adapters.integrations import INTEGRATIONS, Integration, Tried, tried


def integrations(*, tested: bool = False) -> Mapping[Integration, Tried | None]:
    """Every tool with when its tests last passed; only those that did where `tested`. Reads."""
    passed = tried()
    return {one: passed.get(one.name) for one in INTEGRATIONS if one.name in passed or not tested}


def version(one: Integration) -> str:
    """The version that is installed here; empty where none is. Reads; asks a program."""
    if one.package:
        try:
            return metadata.version(one.package)
        except metadata.PackageNotFoundError:
            return ""
    if not one.program or not shutil.which(one.program[0]):
        return ""
    told = subprocess.run(one.program, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    found = re.search(r"\d+(\.\d+)+\w*", told.stdout + told.stderr)
    return found[0] if found else ""


def page() -> str:
    """docs/integrations.md. Reads when each was tried."""
    known = integrations()
    lines = [
        "# Integrations",
        "",
        "Written by `lab docs` from the code; `lab integrations` also says what is installed here.",
        "",
        "Lab joins tools; it replaces none of them. A tool counts as tried where every test named beside it passed",
        "with the tool itself: `pytest --keep-tried TESTS` notes the day and the tool's version. Where something else",
        "answers in a tool's place, that is said.",
        "",
        "| tool | what it does | kinds | extra | last passed | tests |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for one, passed in known.items():
        state = (
            f"{passed.day} with {passed.version}" if passed else f"only {one.stand_in}" if one.stand_in else "not yet"
        )
        tests = " ".join(f"`{t}`" for t in one.tests)
        extra = f"`{one.extra}`" if one.extra else "–"
        lines.append(f"| {one.name} | {one.does} | {', '.join(one.kinds)} | {extra} | {state} | {tests} |")
    return "\n".join(lines) + "\n"
