"""Pages: every verb's help, the integrations, the support of hosts; and the broken links of docs/."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from lab.app import hosts, integrations
from lab.cli.main import Parser, verbs

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


def pages() -> dict[str, str]:
    """Each page that is made here, by its place. Reads."""
    return {
        "docs/verbs.md": text(),
        "docs/integrations.md": integrations.page(),
        "docs/support_matrix.md": hosts.page(),
    }


def check(root: Path) -> list[str]:
    """What is stale or broken: the pages made here, and links between pages that lead nowhere. Reads."""
    stale = [
        page
        for page, wanted in pages().items()
        if not (root / page).is_file() or (root / page).read_text(encoding="utf-8") != wanted
    ]
    for path in sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")]):
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            if not (path.parent / target.strip()).exists():
                stale.append(f"{path.relative_to(root)} → {target}")
    return stale


def write(root: Path) -> list[str]:
    """The pages made here are as the code says; returns those that were not."""
    written = []
    for page, wanted in pages().items():
        path = root / page
        if not path.is_file() or path.read_text(encoding="utf-8") != wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted, encoding="utf-8")
            written.append(page)
    return written
