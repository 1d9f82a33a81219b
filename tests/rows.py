"""Which requirement is tried where: `python -m tests.rows [ROWS.yaml]` prints each id with the tests that name it.

With a file of rows (a list of mappings with `id`, and `scope` where there is one), rows of the core that no test names
are told as well, and the exit code is 1 where there are any. The tests stand alone: they need no such file.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import yaml

from tests.labs import REPO

ID = re.compile(r"\b(?:S\d(?:-[A-Z0-9.]+)+-\d+|DC-\d+)\b")


def tried(root: Path = REPO / "tests") -> dict[str, list[str]]:
    """Id → `FILE` where a whole file says that it proves it, `FILE::FUNCTION` where a test does. Reads."""
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("test_*.py")):
        file = path.relative_to(root.parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = f"{file}::{node.name}" if isinstance(node, ast.FunctionDef) else file
                for one in ID.findall(ast.get_docstring(node) or ""):
                    found.setdefault(one, set()).add(name)
    return {one: sorted(found[one]) for one in sorted(found)}


def main(words: list[str]) -> int:
    """Prints the map; with a file of rows, what is missing."""
    known = tried()
    for one, tests in known.items():
        print(f"{one:<14} {tests[0]}")
        print("".join(f"{'':<14} {test}\n" for test in tests[1:]), end="")
    if not words:
        return 0
    rows = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))
    missing = [r["id"] for r in rows if r.get("scope", "core") == "core" and r["id"] not in known]
    print(f"{len(known)} rows are named by a test; {len(missing)} of the core are not: {', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
