"""Pages: docs/verbs.md, every verb's help, and the broken links of docs/."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from lab.cli.main import Parser, verbs

PAGE = Path("docs/verbs.md")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def text() -> str:
    """Every verb with its usage, as Markdown. Pure but for importing the verbs."""
    os.environ["COLUMNS"] = "100"
    lines = ["# Verbs", "", "Written by `lab docs` from the code; the same as `lab VERB --help`.", ""]
    for verb in sorted(verbs()):
        name = verb if (Path(__file__).parent / f"{verb}.py").exists() else f"{verb}_"
        module = importlib.import_module(f"lab.cli.{name}")
        parser = Parser(prog=f"lab {verb}", add_help=False)
        module.arguments(parser)
        about = (module.__doc__ or "").strip()
        lines += [f"## lab {verb}", "", about, "", "```", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def check(root: Path) -> list[str]:
    """What is stale or broken: the page of the verbs, and links between pages that lead nowhere. Reads."""
    page = root / PAGE
    stale = [] if page.is_file() and page.read_text(encoding="utf-8") == text() else [str(PAGE)]
    for path in sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")]):
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            if not (path.parent / target.strip()).exists():
                stale.append(f"{path.relative_to(root)} → {target}")
    return stale


def write(root: Path) -> list[str]:
    """The page of the verbs is as the code says; returns its name where it was not."""
    page = root / PAGE
    wanted = text()
    if page.is_file() and page.read_text(encoding="utf-8") == wanted:
        return []
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(wanted, encoding="utf-8")
    return [str(PAGE)]
